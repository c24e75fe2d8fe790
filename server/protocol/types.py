"""The objects that events carry: audio formats, conversation items, responses, usage, errors.

Names and shapes are those of the OpenAI Realtime GA API. Unknown keys of what clients send are
ignored; what is sent is typed in full. The session is in `protocol.session_types`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from aqaa.server.protocol.base64_data import decode_base64, encode_base64
from aqaa.server.protocol.tools import ToolChoice, Tools

Json = dict[str, Any]
Modality = Literal["text", "audio"]
# A list has a bound though few values can be in it: each wrong one would cost an error of its own.
Modalities = Annotated[list[Modality], Field(max_length=2)]

Name = Annotated[str, Field(max_length=512)]  # ids, names and other short strings
MAX_PARTS = 64  # content parts of one item


def _bytes(value: object) -> object:
    return decode_base64(value) if isinstance(value, str) else value


# Bytes here, base64 in JSON.
Base64 = Annotated[bytes, BeforeValidator(_bytes), PlainSerializer(encode_base64, when_used="json")]


class Wire(BaseModel):
    """Base of everything on the wire: frozen values, unknown keys ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if part is not None}
    return value


class Lenient(Wire):
    """Base of what clients send: a key that is null is not set, as typed clients mean it."""

    _nulls = model_validator(mode="before")(_without_nulls)


def is_unset(value: object) -> bool:
    """Whether a key is left out of what is sent: strict clients know no null there."""
    return value is None


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


def _voice_id(value: object) -> object:
    return value["id"] if isinstance(value, dict) and "id" in value else value


VoiceName = Annotated[Name, BeforeValidator(_voice_id)]  # a name, or OpenAI's {"id": name}


MaxTokens = Annotated[int, Field(ge=1, le=4096)] | Literal["inf"]


# Settings that are accepted and shown, and mean nothing here: there are no stored prompts, no
# dashboard of traces, and the model does not think before it speaks.


def _shape(value: object) -> str:
    return "object" if isinstance(value, dict | BaseModel) else "name"


# Tells a setting that may be a name or an object by what it is, for errors about that alone.
NAME_OR_OBJECT = Discriminator(_shape)


class StoredPrompt(Lenient):
    """A prompt that OpenAI keeps for its users."""

    id: Name
    version: Name | None = Field(default=None, exclude_if=is_unset)
    variables: Json | None = Field(default=None, exclude_if=is_unset)


class Tracing(Lenient):
    """How a session is named where traces are shown."""

    workflow_name: Name | None = Field(default=None, exclude_if=is_unset)
    group_id: Name | None = Field(default=None, exclude_if=is_unset)
    metadata: Json | None = Field(default=None, exclude_if=is_unset)


class Reasoning(Lenient):
    """How much is thought before an answer."""

    effort: Literal["minimal", "low", "medium", "high", "xhigh"] | None = Field(
        default=None, exclude_if=is_unset
    )


def one_modality(value: list[Modality]) -> list[Modality]:
    """`["audio"]` (which always has a transcript) or `["text"]`.

    The beta's `["text", "audio"]` means audio.

    Raises:
        ValueError: the list is empty.
    """
    if not value:
        raise ValueError('give ["audio"] or ["text"]')
    return ["audio"] if "audio" in value else ["text"]


# --- the conversation -----------------------------------------------------------------------------


class InputText(Lenient):
    """Text of a user or the system."""

    type: Literal["input_text"] = "input_text"
    text: str


class InputSound(Lenient):
    """Sound of a user: in the session's input format when created, null when sent back."""

    type: Literal["input_audio"] = "input_audio"
    audio: Base64 | None = Field(default=None, exclude_if=is_unset)
    transcript: str | None = None


class OutputText(Lenient):
    """Text of the assistant."""

    type: Literal["output_text"] = "output_text"
    text: str


class OutputSound(Lenient):
    """Sound of the assistant, known by its transcript."""

    type: Literal["output_audio"] = "output_audio"
    transcript: str | None = None


Content = Annotated[InputText | InputSound | OutputText | OutputSound, Field(discriminator="type")]
Status = Literal["completed", "incomplete", "in_progress"]


class Message(Lenient):
    """One turn of the conversation."""

    id: Name | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    status: Status = "completed"
    role: Literal["user", "assistant", "system"]
    content: list[Content] = Field(max_length=MAX_PARTS)


class RetrievedSound(Wire):
    """A part that is sound, as it is retrieved; `audio` is base64."""

    type: Literal["input_audio", "output_audio"]
    audio: str | None = Field(default=None, exclude_if=is_unset)
    transcript: str | None = None


class RetrievedMessage(Wire):
    """A turn of the conversation with its sound."""

    id: str | None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    status: Status
    role: Literal["user", "assistant", "system"]
    content: list[InputText | OutputText | RetrievedSound]


class FunctionCall(Lenient):
    """A function that the assistant called; `arguments` is JSON."""

    id: Name | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["function_call"] = "function_call"
    status: Status = "completed"
    call_id: Name | None = Field(default=None, exclude_if=is_unset)
    name: Name
    arguments: str


class FunctionCallOutput(Lenient):
    """What the function of an earlier `FunctionCall` gave back."""

    id: Name | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["function_call_output"] = "function_call_output"
    status: Status = "completed"
    call_id: Name
    output: str


class ItemReference(Lenient):
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
    message: str


class StatusDetails(Wire):
    """Why a response did not complete."""

    type: Literal["cancelled", "incomplete", "failed", "completed"]
    reason: str | None = Field(default=None, exclude_if=is_unset)
    error: StatusError | None = Field(default=None, exclude_if=is_unset)


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


class ResponseOutputOverride(Lenient):
    """`audio.output` of a `response.create`."""

    format: AudioFormat | None = None
    voice: VoiceName | None = None


class ResponseAudioOverride(Lenient):
    """`audio` of a `response.create`."""

    output: ResponseOutputOverride = ResponseOutputOverride()


def _few_pairs(value: object) -> object:
    """Counted before any is looked at, unlike by `max_length`."""
    if isinstance(value, dict) and len(value) > MAX_PAIRS:
        raise ValueError(f"at most {MAX_PAIRS} pairs are taken, not {len(value)}")
    return value


# OpenAI's bounds.
MAX_PAIRS = 16
Metadata = Annotated[
    dict[
        Annotated[str, Field(max_length=64)],
        Annotated[str, Field(max_length=512)],
    ],
    BeforeValidator(_few_pairs),
]


class ResponseOptions(Lenient):
    """`response` of a `response.create`: what differs from the session, for this answer only."""

    conversation: Literal["auto", "none"] = "auto"
    instructions: str | None = None
    input: list[InputItem] | None = Field(default=None, max_length=512)
    output_modalities: Modalities | None = None
    audio: ResponseAudioOverride = ResponseAudioOverride()
    max_output_tokens: MaxTokens | None = None
    metadata: Metadata | None = None
    prompt: StoredPrompt | None = None
    reasoning: Reasoning | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

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
    text: str | None = Field(default=None, exclude_if=is_unset)
    transcript: str | None = Field(default=None, exclude_if=is_unset)
