"""What all sessions share: the loaded parts, and how each session gets its own small pieces."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import Bundle
from aqaa.server.audio.noise import STRONGEST
from aqaa.server.audio.recordings import RecordingDecoder
from aqaa.server.audio.wire import AudioFormat, InputConverter, OutputConverter
from aqaa.server.clock import Clock
from aqaa.server.compute.chunk_delays import ChunkDelays
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Model
from aqaa.server.compute.places import IdPace, Places
from aqaa.server.dialogue.answer_parser import AnswerParser
from aqaa.server.dialogue.call_schema import schema_of_call, unwritable
from aqaa.server.dialogue.prompt import PromptBuilder
from aqaa.server.dialogue.text_codec import TextCodec
from aqaa.server.dialogue.tools import Calling, Tool
from aqaa.server.engine.call_shape import CallShape
from aqaa.server.engine.contract import Engine, SamplingParams
from aqaa.server.hearing.end_of_turn import Judge
from aqaa.server.hearing.no_speech import SpeechProbability
from aqaa.server.hearing.tokenising import AudioTokenizer, Tokenising
from aqaa.server.observe.metrics import Metrics
from aqaa.server.observe.traces import TurnTracer
from aqaa.server.protocol.configure import Voices, updated
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.session_types import NoiseReduction, Session
from aqaa.server.protocol.tools import FunctionTool, NamedFunction, ToolChoice
from aqaa.server.protocol.types import Json, PcmaFormat, PcmFormat, PcmuFormat
from aqaa.tokenizers.transcriber import Transcriber

ITEM_SECONDS = 60.0  # of sound inside one item, whatever the context holds
WireFormat = PcmFormat | PcmuFormat | PcmaFormat

# OpenAI's own voices. Clients send one by default; here each means the bundle's default voice.
OPENAI_VOICES = [
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
]


class Vad(Protocol):
    """Makes VAD streams (`vad.VadModel`)."""

    def stream(self) -> SpeechProbability:
        """A new stream."""


class VoiceStream(Protocol):
    """A streaming vocoder's state (`aqaa.vocoder.vocoder.VocoderStream`)."""

    def feed(self, tokens: Sequence[int], /) -> None:
        """Add audio tokens, in whole groups."""

    def due(self, *, final: bool = False) -> Any | None:
        """The next chunk whose groups are there; with `final`, the rest, as the last one."""

    def take(self, synthesised: Any, /) -> NDArray[np.float32]:
        """The sound of the chunk that was due: 22.05 kHz, float32 [n]."""


class Vocoder(Protocol):
    """Makes voice streams (`aqaa.vocoder.vocoder.Vocoder`)."""

    def stream(self, voice: str, speed: float = 1.0) -> VoiceStream:
        """A new stream. Computes nothing."""

    def synthesise(self, chunks: Sequence[Any], /) -> Sequence[Any]:
        """What `VoiceStream.take` wants for each chunk."""

    def shape_of(self, chunk: Any, /) -> Hashable:
        """Chunks of equal shape are computed faster in one call than one by one."""

    @property
    def max_batch(self) -> int:
        """Chunks that are computed in one call at most."""

    @property
    def at_once(self) -> int | None:
        """Calls of `synthesise` that are worth making at the same time; None: any number."""


@dataclass(frozen=True)
class Services:
    """What answers are made with; shared by all of them.

    Attributes:
        unheard: answers that somebody may be waiting for, and that have no sound yet.
    """

    engine: Engine
    vocoder: Vocoder
    synthesis: Model[Any, Any]  # the vocoder's chunks
    executor: Executor
    recordings: RecordingDecoder
    metrics: Metrics
    clock: Clock
    pace: IdPace  # of the answers' ids
    chunk_delays: ChunkDelays  # of their sound
    ahead_seconds: float
    tracer: TurnTracer | None = None  # None: nobody collects traces
    unheard: set[object] = field(default_factory=set)


@dataclass(frozen=True)
class ModelParts:
    """One server's parts."""

    bundle: Bundle
    tokenizer: AudioTokenizer
    tokenising: Tokenising
    transcriber: Transcriber | None  # None: the bundle has none, and nobody's words are known
    vad: Vad
    judge: Judge | None  # None: silence alone ends turns
    text: TextCodec
    prompts: PromptBuilder
    voices: Voices
    services: Services
    max_turn_seconds: float
    speculation: bool
    places: Places | None = None  # None: how many conversations are served well is not measured

    def session_of_type(self, type: object, expires_at: int | None = None) -> Session:
        """A new session: a conversation (`realtime`), or one that only writes down what it hears.

        Raises:
            ProtocolError: there is no such type, or no transcriber for it.
        """
        if type not in ("realtime", "transcription"):
            raise ProtocolError("invalid_value", f"no session of type {str(type)[:64]!r}", "type")
        if type == "transcription" and self.transcriber is None:
            raise ProtocolError(
                "model_not_found", f"{self.bundle.name!r} has no transcriber: it answers only"
            )
        return Session(
            id=random_id("sess"),
            type="realtime" if type == "realtime" else "transcription",
            model=self.bundle.name,
            instructions=self.bundle.decoder.system_prompt,
            expires_at=expires_at,
        )

    def configured(self, session: Session, patch: Json) -> Session:
        """The session with a client's settings laid over it, as far as these parts can serve them.

        Raises:
            ProtocolError: a key that means nothing, or a value that cannot be; names its path.
        """
        return updated(
            session,
            patch,
            self.voices,
            transcribes=self.transcriber is not None,
            calls=self.bundle.tools is not None,
        )

    def calling(
        self, tools: Sequence[FunctionTool], choice: ToolChoice, *, parallel: bool = True
    ) -> Calling | None:
        """What an answer may call; None: nothing is declared, or the bundle calls no functions.

        A choice of a function that is not declared is none.
        """
        if self.bundle.tools is None or not tools:
            return None
        known = {
            tool.name: Tool(tool.name, tool.description or "", tool.parameters) for tool in tools
        }
        if isinstance(choice, NamedFunction):
            return Calling(tuple(known.values()), known.get(choice.name) or "auto", parallel)
        return Calling(tuple(known.values()), choice, parallel)

    def cannot_call(self, tools: Sequence[FunctionTool], choice: ToolChoice) -> str | None:
        """Why no answer can make the call that it must, in words; None: it can, or need not."""
        calling = self.calling(tools, choice)
        if calling is None or not calling.must_call:
            return None
        missing = [unwritable(tool, self.text.knows) for tool in calling.allowed]
        if not all(missing):
            return None
        return (
            f"{calling.allowed[0].name!r} cannot be called: {self.bundle.name!r} has no ids that"
            f" write {missing[0]}; use other letters there, or another tool_choice"
        )

    def parser(self, calling: Calling | None = None) -> AnswerParser:
        """A parser for one answer, which may make these calls."""
        return AnswerParser(self.bundle.tokens, self.text, self.bundle.tools, calling)

    def asked(
        self,
        prompt: Sequence[int],
        max_tokens: int | None,
        calling: Calling | None,
        begun: tuple[int, ...] = (),
    ) -> tuple[tuple[int, ...], SamplingParams]:
        """The prompt with the beginning that the answer has or must have, and how to go on."""
        opening = begun or self.prompts.opening(calling)
        params = SamplingParams.of(
            self.bundle,
            max_tokens=max_tokens,
            may_call=calling is not None and bool(calling.allowed),
            parallel_calls=calling is None or calling.parallel,
        )
        params = replace(params, answered=len(opening), calls=self._calls(calling))
        return (*prompt, *opening), params

    def _calls(self, calling: Calling | None) -> CallShape | None:
        marks = self.bundle.tools
        if marks is None or calling is None or not calling.allowed:
            return None
        return CallShape(marks.call_start, marks.call_end, schema_of_call(calling.allowed))

    def limits(self) -> Limits:
        """What one session may hold: text and sound that can be in a prompt."""
        context = self.bundle.decoder.context
        budget = context - min(self.bundle.sampling.max_tokens, context // 2)
        return Limits.of_context(
            budget,
            max(ITEM_SECONDS, self.max_turn_seconds),
            lambda text: len(self.text.encode(text)),
            lambda tools: self.prompts.instructions("", self.calling(tools, "auto")),
            self.cannot_call,
        )


def synthesis_of(vocoder: Vocoder) -> Model[Any, Any]:
    """The vocoder as a model of the executor."""
    return Model(
        "vocoder",
        vocoder.synthesise,
        shape_of=vocoder.shape_of,
        max_batch=vocoder.max_batch,
        heavy=True,
        at_once=vocoder.at_once,
    )


def voices_of(names: tuple[str, ...], default: str) -> Voices:
    """The bundle's voices, with the names that clients of other services send."""
    aliases = {name: default for name in OPENAI_VOICES if name not in names}
    return Voices(names=names, default=default, aliases=aliases)


def wire_audio(format: WireFormat) -> AudioFormat:
    """The tokenizers' name for a format of the protocol."""
    match format:
        case PcmFormat():
            return AudioFormat("pcm16", format.rate)
        case PcmuFormat():
            return AudioFormat("pcmu", 8000)
        case PcmaFormat():
            return AudioFormat("pcma", 8000)


def input_of(
    format: WireFormat, noise: NoiseReduction | None = None
) -> Callable[[], InputConverter]:
    """Makes converters from this format, with the wanted noise reduction."""
    audio, level = wire_audio(format), noise_level(noise)
    return lambda: InputConverter(audio, level)


def noise_level(wanted: NoiseReduction | None) -> int:
    """How strongly the suppressor works: a distant microphone brings more noise than a near one."""
    if wanted is None:
        return 0
    full = STRONGEST if wanted.type == "far_field" else STRONGEST // 2
    return round(full * (1.0 if wanted.strength is None else wanted.strength))


def output_of(format: WireFormat) -> OutputConverter:
    """A converter to this format."""
    return OutputConverter(wire_audio(format))
