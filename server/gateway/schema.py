"""The bodies of REST requests, in OpenAI's shapes. Keys that this server has no use for pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, FailFast, Field, field_validator, model_validator

from aqaa.server.protocol.tools import MAX_TOOLS, FunctionName, FunctionTool
from aqaa.server.protocol.types import Lenient, VoiceName

MIN_TEMPERATURE = 0.01  # below it sampling is greedy in all but name
MOST_TOKENS = 2**31 - 1
MOST_PARTS = 256  # of one message
NO_LOGPROBS = "the probabilities of an answer's tokens are not told: leave it out"
NO_PENALTY = "tokens are drawn as the model's bundle says and are not penalised: leave it out or 0"
ONE_SPEAKER = "speakers are not told apart: leave it out"
OLD_CALLS = "functions are declared in `tools`, chosen by `tool_choice` and called in `tool_calls`"

T = TypeVar("T")


def _refused(words: str, is_off: Callable[[T], bool] = lambda value: not value) -> AfterValidator:
    """A validator of what is not done here: only a value that asks for nothing is taken."""

    def check(value: T) -> T:
        if not is_off(value):
            raise ValueError(words)
        return value

    return AfterValidator(check)


class TextPart(Lenient):
    """Written content."""

    type: Literal["text"]
    text: str


class InputAudioData(Lenient):
    """A recording in base64; the container is found out, `format` is not needed for it."""

    data: str
    format: str = "wav"


class InputAudioPart(Lenient):
    """Spoken content."""

    type: Literal["input_audio"]
    input_audio: InputAudioData


class AudioReference(Lenient):
    """An answer of this server's, by the id that came with it."""

    id: str


class RefusalPart(Lenient):
    """OpenAI's models refuse so; it stands in histories."""

    type: Literal["refusal"]
    refusal: str


ContentPart = Annotated[TextPart | InputAudioPart | RefusalPart, Field(discriminator="type")]


class CalledFunction(Lenient):
    """A function and its arguments, JSON."""

    name: str
    arguments: str


class CallPart(Lenient):
    """A call that the assistant made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Lenient):
    """One turn."""

    role: Annotated[
        Literal["system", "developer", "user", "assistant", "tool", "function"],
        _refused(f"{OLD_CALLS}; what one gave is a message of `tool`", lambda it: it != "function"),
    ]
    content: str | Annotated[list[ContentPart], Field(max_length=MOST_PARTS)] | None = None
    refusal: str | None = None
    function_call: Annotated[Any, _refused(OLD_CALLS)] = None
    audio: AudioReference | None = None
    tool_calls: list[CallPart] | None = Field(default=None, max_length=MOST_PARTS)
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _sound_is_the_users(self) -> Self:
        parts = self.content if isinstance(self.content, list) else []
        if self.role != "user" and any(isinstance(part, InputAudioPart) for part in parts):
            raise ValueError(f"input_audio is what a user says; a message of {self.role} has text")
        return self


class ChatTool(Lenient):
    """A function that may be called."""

    type: Literal["function"]
    function: FunctionTool


class FunctionNamed(Lenient):
    """Its name."""

    name: FunctionName


class NamedChoice(Lenient):
    """This function shall be called."""

    type: Literal["function"]
    function: FunctionNamed


class AllowedToolList(Lenient):
    """Some of the request's tools, and whether one of them shall be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedChoice] = Field(max_length=MAX_TOOLS)


class AllowedTools(Lenient):
    """Only these functions may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolList

    @property
    def mode(self) -> Literal["auto", "required"]:
        """Whether one of them shall be called."""
        return self.allowed_tools.mode

    @property
    def names(self) -> set[str]:
        """Their names."""
        return {tool.function.name for tool in self.allowed_tools.tools}


class AudioOptions(Lenient):
    """How a spoken answer sounds."""

    voice: VoiceName = ""
    format: str = Field(default="wav", description="wav, mp3, flac, opus or pcm16")


class StreamOptions(Lenient):
    """What a stream ends with."""

    include_usage: bool = False
    include_obfuscation: Annotated[bool, _refused("chunks are not padded: leave it out")] = False


class ResponseFormat(Lenient):
    """What the answer's text looks like: as it is spoken."""

    type: str

    @field_validator("type")
    @classmethod
    def _is_text(cls, value: str) -> str:
        if value != "text":
            raise ValueError(
                f'{value!r} is not made here: what is spoken is no JSON. Leave it out or say "text"'
            )
        return value


class ChatRequest(Lenient):
    """`POST /v1/chat/completions`."""

    model: str
    # Of thousands of wrong ones the first is told: all of them would hold the event loop.
    messages: Annotated[list[ChatMessage], Field(min_length=1), FailFast()]
    modalities: list[Literal["text", "audio"]] | None = Field(default=None, max_length=2)
    audio: AudioOptions | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    n: Annotated[
        int | None, _refused("one answer is made: ask again for another", lambda n: n == 1)
    ] = None
    stop: Annotated[
        str | list[str] | None,
        _refused("an answer is not cut at a word: leave it out", lambda texts: not any(texts)),
    ] = None
    frequency_penalty: Annotated[float | None, _refused(NO_PENALTY)] = None
    presence_penalty: Annotated[float | None, _refused(NO_PENALTY)] = None
    logit_bias: Annotated[
        dict[str, float] | None,
        _refused("no token is made likelier: leave it out", lambda bias: not any(bias.values())),
    ] = None
    tools: list[ChatTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | NamedChoice | AllowedTools = "auto"
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: Annotated[bool | None, _refused(NO_LOGPROBS)] = None
    top_logprobs: Annotated[int | None, _refused(NO_LOGPROBS)] = None
    functions: Annotated[list[Any] | None, _refused(OLD_CALLS)] = None
    function_call: Annotated[
        Any, _refused(OLD_CALLS, lambda choice: choice in ("none", "auto"))
    ] = None
    reasoning_effort: Annotated[
        str | None, _refused("the model does not reason: leave it out", lambda it: it == "none")
    ] = None
    verbosity: Annotated[
        str | None,
        _refused("say in the system's message how long answers are", lambda it: it == "medium"),
    ] = None
    store: Annotated[bool | None, _refused("answers are not kept for reading: leave it out")] = None
    service_tier: Annotated[
        str | None,
        _refused("all are served alike: leave it out", lambda it: it in ("auto", "default")),
    ] = None
    moderation: Annotated[Any, _refused("nothing is moderated here: leave it out")] = None
    web_search_options: Annotated[
        Any, _refused("nothing is searched here: leave it out", lambda _: False)
    ] = None

    @field_validator("temperature")
    @classmethod
    def _zero_if_nearly(cls, value: float | None) -> float | None:
        """Logits divided by a tiny number overflow; the likeliest token is what is meant."""
        return 0.0 if value is not None and value < MIN_TEMPERATURE else value


class ExpiresAfter(Lenient):
    """How long a client secret lives; OpenAI's bounds and default."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=600, ge=10, le=7200)


class ClientSecretRequest(Lenient):
    """`POST /v1/realtime/client_secrets`."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = Field(default_factory=dict)


class TranscriptionForm(Lenient):
    """The fields of `POST /v1/audio/transcriptions` beside the file; other ones have no effect."""

    model: str = Field(default="", description="any: one recogniser serves them all")
    language: str = Field(default="", description="shown in verbose_json; none is detected")
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    stream: bool = False
    timestamp_granularities: list[Literal["word", "segment"]] = Field(default=["segment"])
    include: list[Literal["logprobs"]] = Field(default=[])
    known_speaker_names: Annotated[Any, _refused(ONE_SPEAKER)] = None
    known_speaker_references: Annotated[Any, _refused(ONE_SPEAKER)] = None
