"""The objects that events carry: session, conversation items, responses, usage, errors.

Names and shapes are those of the OpenAI Realtime GA API. What clients send may hold keys that this
server has no use for (tools, tracing): they are ignored. What it sends is typed in full.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from aqaa.server.protocol.base64_data import decode_base64, encode_base64

Json = dict[str, Any]
Modality = Literal["text", "audio"]

MIN_SPEED = 0.5  # times the normal rate; slower than this the vocoder is not clear


Name = Annotated[str, Field(max_length=512)]  # ids, names and other short strings
MAX_PARTS = 64  # content parts of one item
MAX_TOOLS = 128  # OpenAI's bound


def _bytes(value: object) -> object:
    return decode_base64(value) if isinstance(value, str) else value


# Bytes here, base64 in JSON.
Base64 = Annotated[bytes, BeforeValidator(_bytes), PlainSerializer(encode_base64, when_used="json")]


class Wire(BaseModel):
    """Base of everything on the wire: frozen values, unknown keys ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


# --- audio formats and turn detection -------------------------------------------------------------


class PcmFormat(Wire):
    """Little-endian 16-bit mono. 24 kHz is OpenAI's only rate; here it is any that devices have."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: int = Field(default=24_000, ge=8_000, le=192_000)


class PcmuFormat(Wire):
    """G.711 mu-law, 8 kHz, one byte a sample."""

    type: Literal["audio/pcmu"] = "audio/pcmu"


class PcmaFormat(Wire):
    """G.711 A-law, 8 kHz, one byte a sample."""

    type: Literal["audio/pcma"] = "audio/pcma"


AudioFormat = Annotated[PcmFormat | PcmuFormat | PcmaFormat, Field(discriminator="type")]


WireFormat = PcmFormat | PcmuFormat | PcmaFormat


def bytes_per_second(format: WireFormat) -> int:
    """Bytes of one second of mono audio in this format."""
    return format.rate * 2 if isinstance(format, PcmFormat) else 8_000


class ServerVad(Wire):
    """End of turn by silence. Defaults are OpenAI's."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    prefix_padding_ms: int = Field(default=300, ge=0, le=5000)
    silence_duration_ms: int = Field(default=500, ge=0, le=10_000)
    create_response: bool = True
    interrupt_response: bool = True
    idle_timeout_ms: int | None = Field(default=None, ge=1000, le=60_000)


class SemanticVad(Wire):
    """End of turn by eagerness: here a silence, longer the less eager (`hearing.turn_detector`).

    A turn that ended too early goes on, if `interrupt_response` lets it.
    """

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


# --- the session ----------------------------------------------------------------------------------


class NoiseReduction(Wire):
    """Accepted and echoed; the tokenizers were trained on noisy speech and need no help."""

    type: Literal["near_field", "far_field"]


def _is_unset(value: object) -> bool:
    return value is None


class Transcription(Wire):
    """That the user's words are wanted. One recogniser makes them, whatever is asked for here.

    What is sent back are the keys that were sent: strict clients know no others.
    """

    model: Name | None = Field(default=None, exclude_if=_is_unset)
    language: Name | None = Field(default=None, exclude_if=_is_unset)
    languages: list[Name] | None = Field(default=None, max_length=64, exclude_if=_is_unset)
    prompt: str | None = Field(default=None, max_length=4096, exclude_if=_is_unset)
    keywords: list[Name] | None = Field(default=None, max_length=256, exclude_if=_is_unset)
    delay: Name | None = Field(default=None, exclude_if=_is_unset)

    @property
    def is_live(self) -> bool:
        """Whether words are wanted while they are spoken, before the turn is an item."""
        return self.model in ("gpt-realtime-whisper", "gpt-live-transcribe")


class InputAudio(Wire):
    """How the client's audio arrives; `transcription` null: its words are not sent."""

    format: AudioFormat = PcmFormat()
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = ServerVad()


def _voice_id(value: object) -> object:
    return value["id"] if isinstance(value, dict) and "id" in value else value


VoiceName = Annotated[Name, BeforeValidator(_voice_id)]  # a name, or OpenAI's {"id": name}


class OutputAudio(Wire):
    """How answers sound."""

    format: AudioFormat = PcmFormat()
    voice: VoiceName = ""
    speed: float = Field(default=1.0, ge=0.25, le=2.0)

    @field_validator("speed")
    @classmethod
    def _at_least_min_speed(cls, value: float) -> float:
        """OpenAI allows 0.25; the session that is sent back says which speed is used here."""
        return max(value, MIN_SPEED)


class SessionAudio(Wire):
    """Both directions."""

    input: InputAudio = InputAudio()
    output: OutputAudio = OutputAudio()


MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]


class Extensions(Wire):
    """What is not OpenAI's, off unless asked for: strict clients end a session over unknown events.

    `latency` sends `aqaa.latency` with each answer's first sound; `captions` adds `audio_start_ms`
    to transcript deltas.
    """

    extensions: tuple[Literal["latency", "captions"], ...] = ()


class Session(Wire):
    """A session's whole configuration, as `session.created` and `session.updated` send it.

    Of type `transcription` it gives no answers, and is shown without what is about them.
    """

    type: Literal["realtime", "transcription"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    instructions: str = ""
    output_modalities: list[Modality] = ["audio"]
    audio: SessionAudio = SessionAudio()
    max_output_tokens: MaxTokens = "inf"
    tools: list[Json] = Field(default=[], max_length=MAX_TOOLS)
    tool_choice: str | Json = "auto"
    truncation: str | Json = "auto"
    include: list[str] | None = None
    expires_at: int | None = None
    aqaa: Extensions = Field(default=Extensions(), exclude_if=lambda value: not value.extensions)

    @field_validator("output_modalities")
    @classmethod
    def _text_or_audio(cls, value: list[Modality]) -> list[Modality]:
        return one_modality(value)


def one_modality(value: list[Modality]) -> list[Modality]:
    """`["audio"]` (which always has a transcript) or `["text"]`.

    The beta's `["text", "audio"]` means audio.

    Raises:
        ValueError: the list is empty.
    """
    if not value:
        raise ValueError('output_modalities is ["audio"] or ["text"]')
    return ["audio"] if "audio" in value else ["text"]


NULLABLE = {"turn_detection", "noise_reduction", "transcription", "include", "idle_timeout_ms"}


def merge(current: Json, patch: Json) -> Json:
    """`current` with `patch` laid over it, objects key by key.

    A null leaves the value as it is, but for what may be null (`turn_detection` and others). An
    object whose `type` changes is replaced whole, since its other keys belong to the old type.
    """
    merged = dict(current)
    for key, value in patch.items():
        old = current.get(key)
        if value is None and key not in NULLABLE:
            continue  # typed clients send null for what they do not set
        if isinstance(old, dict) and isinstance(value, dict):
            same = value.get("type", old.get("type")) == old.get("type")
            merged[key] = merge(old, value) if same else value
        else:
            merged[key] = value
    return merged


# --- the conversation -----------------------------------------------------------------------------


class InputText(Wire):
    """Text of a user or the system."""

    type: Literal["input_text"] = "input_text"
    text: str


class InputSound(Wire):
    """Sound of a user: in the session's input format when created, null when sent back."""

    type: Literal["input_audio"] = "input_audio"
    audio: Base64 | None = None
    transcript: str | None = None


class OutputText(Wire):
    """Text of the assistant."""

    type: Literal["output_text"] = "output_text"
    text: str


class OutputSound(Wire):
    """Sound of the assistant, known by its transcript."""

    type: Literal["output_audio"] = "output_audio"
    transcript: str | None = None


Content = Annotated[InputText | InputSound | OutputText | OutputSound, Field(discriminator="type")]
Status = Literal["completed", "incomplete", "in_progress"]


class Message(Wire):
    """One turn of the conversation."""

    id: Name | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    status: Status = "completed"
    role: Literal["user", "assistant", "system"]
    content: list[Content] = Field(max_length=MAX_PARTS)


class FunctionCall(Wire):
    """Kept in the conversation so that client histories load; this model calls no functions."""

    id: Name | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["function_call"] = "function_call"
    status: Status = "completed"
    call_id: Name | None = None
    name: Name
    arguments: str


class FunctionCallOutput(Wire):
    """See `FunctionCall`."""

    id: Name | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["function_call_output"] = "function_call_output"
    status: Status = "completed"
    call_id: Name
    output: str


class ItemReference(Wire):
    """An item of the conversation, named in `response.create`'s input."""

    type: Literal["item_reference"]
    id: Name


Item = Annotated[Message | FunctionCall | FunctionCallOutput, Field(discriminator="type")]
InputItem = Annotated[
    Message | FunctionCall | FunctionCallOutput | ItemReference, Field(discriminator="type")
]


# --- responses ------------------------------------------------------------------------------------


class CachedTokenDetails(Wire):
    """Cached input tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0


class InputTokenDetails(Wire):
    """Input tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0
    image_tokens: int = 0
    cached_tokens: int = 0
    cached_tokens_details: CachedTokenDetails = CachedTokenDetails()


class OutputTokenDetails(Wire):
    """Output tokens by kind."""

    text_tokens: int = 0
    audio_tokens: int = 0


class Usage(Wire):
    """What a response took."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_token_details: InputTokenDetails = InputTokenDetails()
    output_token_details: OutputTokenDetails = OutputTokenDetails()


class StatusError(Wire):
    """Why a response failed."""

    type: str
    code: str


class StatusDetails(Wire):
    """Why a response did not complete."""

    type: Literal["cancelled", "incomplete", "failed", "completed"]
    reason: str | None = None
    error: StatusError | None = None


class ResponseOutputAudio(Wire):
    """The output part of a response's audio settings."""

    format: AudioFormat
    voice: str


class ResponseAudio(Wire):
    """A response's audio settings."""

    output: ResponseOutputAudio


ResponseStatus = Literal["in_progress", "completed", "cancelled", "incomplete", "failed"]


class Response(Wire):
    """A response, as `response.created` and `response.done` send it."""

    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: ResponseStatus
    status_details: StatusDetails | None = None
    output: list[Item] = []
    conversation_id: str | None = None
    output_modalities: list[Modality]
    max_output_tokens: MaxTokens = "inf"
    audio: ResponseAudio
    usage: Usage | None = None
    metadata: dict[str, str] | None = None


def _without_nulls(value: Any) -> Any:
    """Typed clients send null for what they do not set."""
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if part is not None}
    return value


class ResponseOutputOverride(Wire):
    """`audio.output` of a `response.create`."""

    format: AudioFormat | None = None
    voice: VoiceName | None = None


class ResponseAudioOverride(Wire):
    """`audio` of a `response.create`."""

    _nulls = model_validator(mode="before")(_without_nulls)

    output: ResponseOutputOverride = ResponseOutputOverride()


# OpenAI's bounds.
Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]


class ResponseOptions(Wire):
    """`response` of a `response.create`: what differs from the session, for this answer only."""

    _nulls = model_validator(mode="before")(_without_nulls)

    conversation: Literal["auto", "none"] = "auto"
    instructions: str | None = None
    input: list[InputItem] | None = Field(default=None, max_length=512)
    output_modalities: list[Modality] | None = None
    audio: ResponseAudioOverride = ResponseAudioOverride()
    max_output_tokens: MaxTokens | None = None
    metadata: Metadata | None = None

    @field_validator("output_modalities")
    @classmethod
    def _text_or_audio(cls, value: list[Modality] | None) -> list[Modality] | None:
        return None if value is None else one_modality(value)


class Error(Wire):
    """What went wrong. The session goes on unless the socket is closed after it."""

    type: Literal["invalid_request_error", "server_error", "authentication_error"]
    code: str | None = None
    message: str
    param: str | None = None
    event_id: str | None = None


class RateLimit(Wire):
    """One limit of `rate_limits.updated`."""

    name: Literal["requests", "tokens"]
    limit: int
    remaining: int
    reset_seconds: float


class ContentPart(Wire):
    """`part` of `response.content_part.*`: its types are `text` and `audio`, unlike an item's."""

    type: Modality
    text: str | None = None
    transcript: str | None = None
