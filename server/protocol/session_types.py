"""A session's settings, as `session.created` and `session.updated` send them, and their merging.

What clients send may hold keys that this server has no use for: `protocol.known_keys` tells which.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import FailFast, Field, Tag, field_validator

from aqaa.server.protocol.tools import ToolChoice, Tools
from aqaa.server.protocol.types import (
    NAME_OR_OBJECT,
    AudioFormat,
    Json,
    Lenient,
    MaxTokens,
    Modalities,
    Modality,
    Name,
    PcmFormat,
    Reasoning,
    StoredPrompt,
    Tracing,
    VoiceName,
    Wire,
    is_unset,
    one_modality,
)

MIN_SPEED = 0.5  # times the normal rate; slower than this the vocoder is not clear


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
    """End of turn by a judge of turns, as eager as is asked for (`hearing.end_of_turn`).

    A turn that ended too early goes on, if `interrupt_response` lets it; else its end stands.
    """

    type: Literal["semantic_vad"] = "semantic_vad"
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"
    create_response: bool = True
    interrupt_response: bool = True


TurnDetection = Annotated[ServerVad | SemanticVad, Field(discriminator="type")]


class TokenLimits(Lenient):
    """Fewer tokens than the model has room for: those of the turns behind the instructions."""

    post_instructions: int | None = Field(default=None, ge=0, exclude_if=is_unset)


class RetentionRatio(Lenient):
    """A conversation that is too long is cut until this part of its room is taken."""

    type: Literal["retention_ratio"] = "retention_ratio"
    retention_ratio: float = Field(ge=0.0, le=1.0)
    token_limits: TokenLimits | None = Field(default=None, exclude_if=is_unset)


TruncationSetting = Annotated[
    Annotated[Literal["auto", "disabled"], Tag("name")] | Annotated[RetentionRatio, Tag("object")],
    NAME_OR_OBJECT,
]
TracingSetting = Annotated[
    Annotated[Literal["auto"], Tag("name")] | Annotated[Tracing, Tag("object")], NAME_OR_OBJECT
]

Included = Literal["item.input_audio_transcription.logprobs"]


class NoiseReduction(Wire):
    """How strongly noise is taken out of the microphone's sound before anything hears it."""

    type: Literal["near_field", "far_field"] | None = Field(default=None, exclude_if=is_unset)
    strength: float | None = Field(default=None, ge=0.0, le=1.0, exclude_if=is_unset)


class Transcription(Wire):
    """That the user's words are wanted. One recogniser makes them, whatever is asked for here.

    What is sent back are the keys that were sent: strict clients know no others.
    """

    model: Name | None = Field(default=None, exclude_if=is_unset)
    language: Name | None = Field(default=None, exclude_if=is_unset)
    languages: list[Name] | None = Field(default=None, max_length=64, exclude_if=is_unset)
    prompt: str | None = Field(default=None, max_length=4096, exclude_if=is_unset)
    keywords: list[Name] | None = Field(default=None, max_length=256, exclude_if=is_unset)
    delay: Name | None = Field(default=None, exclude_if=is_unset)

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


class Extensions(Wire):
    """What is not OpenAI's, off unless asked for: strict clients end a session over unknown events.

    `latency` sends `aqaa.latency` with each answer's first sound; `captions` adds `audio_start_ms`
    to transcript deltas; `interruptions` sends `aqaa.interruption` while it is doubtful whether an
    answer is interrupted; `resume` lets an answer go on if what interrupted it was nothing.
    """

    extensions: Annotated[
        tuple[Literal["latency", "captions", "interruptions", "resume"], ...], FailFast()
    ] = ()


class Session(Wire):
    """A session's whole configuration, as `session.created` and `session.updated` send it.

    Of type `transcription` it gives no answers, and is shown without what is about them.
    """

    type: Literal["realtime", "transcription"] = "realtime"
    object: Literal["realtime.session"] = "realtime.session"
    id: str
    model: str
    instructions: str = ""
    output_modalities: Modalities = Field(default=["audio"])
    audio: SessionAudio = SessionAudio()
    max_output_tokens: MaxTokens = "inf"
    tools: Tools = Field(default=[])
    tool_choice: ToolChoice = "auto"
    truncation: TruncationSetting = "auto"
    include: list[Included] | None = Field(default=None, max_length=8)
    prompt: StoredPrompt | None = None
    tracing: TracingSetting | None = None
    reasoning: Reasoning | None = Field(default=None, exclude_if=is_unset)
    parallel_tool_calls: bool | None = Field(default=None, exclude_if=is_unset)
    expires_at: int | None = None
    aqaa: Extensions = Field(default=Extensions(), exclude_if=lambda value: not value.extensions)

    @field_validator("output_modalities")
    @classmethod
    def _text_or_audio(cls, value: list[Modality]) -> list[Modality]:
        return one_modality(value)


NULLABLE = {
    *("turn_detection", "noise_reduction", "transcription", "idle_timeout_ms"),
    *("include", "prompt", "tracing"),
}


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
        if isinstance(value, dict):
            old = old if isinstance(old, dict) else {}
            same = value.get("type", old.get("type")) == old.get("type")
            merged[key] = merge(old if same else {}, value)
        else:
            merged[key] = value
    return merged
