"""One answer: prompt in; text and sound out, in the order in which they are to be sent.

    engine ids ─> parser ─┬─ text ──────────────────────────┬─> queue ─> whoever sends it
                          └─ groups ─> vocoder ─> converter ─┘

Two tasks with bounded queues between them, so that the decoder goes on while the vocoder works and
both stop when nobody takes their output. A speculation is an answer that nobody reads yet: it makes
its first seconds and waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, ParamSpec

from aqaa.models.errors import AqaaError, EngineBusyError, EngineDiedError, PromptError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.answering.playback import Playback
from aqaa.server.answering.start_gate import StartGate
from aqaa.server.audio.wire import OutputConverter
from aqaa.server.dialogue.answer_parser import (
    AnswerParser,
    AudioGroup,
    Malformed,
    TextDelta,
    VoiceSwitch,
)
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.observe.latency import Timeline
from aqaa.server.parts import Services, VoiceStream

log = logging.getLogger(__name__)

P = ParamSpec("P")

SPECULATION_SECONDS = 2.0  # of sound at most for an answer that nobody has asked for yet
# The first sound of an answer may come so late for the sake of other answers' next sound: silence
# before an answer is heard less than a gap within one.
FIRST_SOUND_SECONDS = 0.2
EVENT_QUEUE_SIZE = 64  # between decoder and vocoder, and between vocoder and reader


@dataclass(frozen=True)
class AnswerText:
    """More text, spoken from `start` seconds of the sound on (an estimate)."""

    text: str
    tokens: int
    start: float


@dataclass(frozen=True)
class AnswerSound:
    """More sound: `tokens` audio tokens went into it, `seconds` of it are in `data`."""

    data: bytes
    seconds: float
    tokens: int


@dataclass(frozen=True)
class AnswerEnd:
    """The end, always the last thing."""

    status: Literal["completed", "max_output_tokens", "failed"]
    code: str | None = None


AnswerEvent = AnswerText | AnswerSound | AnswerEnd
ParsedEvent = TextDelta | AudioGroup | VoiceSwitch | AnswerEnd  # from the decode task to the other


@dataclass(frozen=True)
class AnswerRequest:
    """What to answer, and how. A speculation is adopted if the request still equals its own."""

    prompt: tuple[int, ...]
    params: SamplingParams
    voice: str
    speed: float
    spoken: bool


@dataclass
class Progress:
    """How far an answer has come."""

    ids: list[int] = field(default_factory=list)
    reused: int = 0  # ids of the prompt that the engine had computed before
    timeline: Timeline = field(default_factory=Timeline)
    playback: Playback = field(default_factory=Playback)  # of what was handed to the socket
    left: Playback = field(default_factory=Playback)  # of what the socket has taken
    made: float = 0.0  # seconds of sound


class Answer:
    """Runs from construction until `AnswerEnd` has been read, or until `stop`."""

    def __init__(
        self,
        services: Services,
        key: str,
        request: AnswerRequest,
        parser: AnswerParser,
        output: OutputConverter | None,
        *,
        bytes_per_second: int = 1,
        paced: bool = True,
    ) -> None:
        """Start answering.

        Args:
            services: see `Services`.
            key: the engine's session key.
            request: what to answer, and how.
            parser: a fresh parser of the bundle's answers.
            output: a fresh converter to the wire's format; None for an answer in text only.
            bytes_per_second: of that format.
            paced: whether the sound is played while it is made; else all of it is wanted at once.
        """
        self.request = request
        self.progress = Progress()
        self.started = services.clock()
        self.over = False  # whether `AnswerEnd` has been read
        self._services = services
        self._key = key
        self._parser = parser
        self._output = output
        self._bytes_per_second = bytes_per_second
        self._paced = paced
        self._kept = b""  # sound that is made, until there is enough to hand on
        self._kept_tokens = 0
        self._start_gate = StartGate()
        self._wanted = asyncio.Event()
        if not paced:
            self._wanted.set()
        self._parsed: asyncio.Queue[ParsedEvent] = asyncio.Queue(EVENT_QUEUE_SIZE)
        self._events: asyncio.Queue[AnswerEvent] = asyncio.Queue(EVENT_QUEUE_SIZE)
        self._tasks = [asyncio.create_task(self._decode()), asyncio.create_task(self._vocode())]

    async def next(self) -> AnswerEvent:
        """The next event; `AnswerEnd` is the last."""
        event = await self._events.get()
        self.over = isinstance(event, AnswerEnd)
        return event

    def adopt(self) -> None:
        """The answer is wanted now: no longer a speculation."""
        self._wanted.set()

    async def stop(self) -> None:
        """End the work; no event follows. May be called at any time, and twice."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- the decoder's half -----------------------------------------------------------------------

    async def _decode(self) -> None:
        try:
            over = await self._take_ids()
        except AqaaError as error:
            log.warning("the answer failed: %s", error)
            over = AnswerEnd("failed", error_code(error))
        except Exception:
            log.exception("the answer failed for a reason that is a bug")
            over = AnswerEnd("failed", "internal_error")
        await self._parsed.put(over)

    async def _take_ids(self) -> AnswerEnd:
        progress, params = self.progress, self.request.params
        stream = self._services.engine.generate(self._key, self.request.prompt, params)
        async with aclosing(stream) as ids:
            async for token in ids:
                if progress.timeline.first_token is None:
                    progress.timeline.first_token = self._services.clock()
                    progress.reused = self._services.engine.reused(self._key)
                progress.ids.append(token)
                await self._parse([token])
        progress.reused = self._services.engine.reused(self._key)  # some know it only now
        for event in self._parser.finish():
            await self._hand_on(event)
        if self._parser.malformed:
            log.warning("%d malformed ids in an answer were dropped", self._parser.malformed)
        ended = bool(progress.ids) and progress.ids[-1] in params.stop_ids
        return AnswerEnd("completed" if ended else "max_output_tokens")

    async def _parse(self, ids: list[int]) -> None:
        for event in self._parser.push(ids):
            await self._hand_on(event)

    async def _hand_on(self, event: object) -> None:
        match event:
            case TextDelta() | VoiceSwitch():
                await self._parsed.put(event)
            case AudioGroup():
                now = self._services.clock()
                if self.progress.timeline.first_group is None:
                    self.progress.timeline.first_group = now
                self._start_gate.decoded(now)
                await self._parsed.put(event)
            case Malformed():
                self._services.metrics.malformed.inc()
                log.debug("ids were dropped: %s", event)

    # --- the vocoder's half -----------------------------------------------------------------------

    async def _vocode(self) -> None:
        try:
            over = await self._vocode_all()
        except AqaaError as error:
            log.warning("the answer's sound failed: %s", error)
            over = AnswerEnd("failed", error_code(error))
        except Exception:
            log.exception("the answer's sound failed for a reason that is a bug")
            over = AnswerEnd("failed", "internal_error")
        self._tasks[0].cancel()  # it has ended already, unless it was the vocoder that failed
        await self._events.put(over)

    async def _vocode_all(self) -> AnswerEnd:
        voice: VoiceStream | None = None
        name = self.request.voice
        groups: list[int] = []
        while True:
            event = await self._parsed.get()
            if isinstance(event, AudioGroup) and self._output is not None:
                groups += event.tokens
                if not self._parsed.empty():
                    continue  # all groups that are there go to the vocoder at once
            if groups and self._output is not None:
                voice = voice or self._services.vocoder.stream(name, self.request.speed)
                await self._pace()
                began = self._services.clock()
                data = await self._compute(_push, voice, self._output, groups)
                self._start_gate.vocoded(
                    len(groups) // GROUP_TOKENS, self._services.clock() - began
                )
                await self._sound(data, len(groups))
                groups = []
            match event:
                case TextDelta():
                    start = event.group * GROUP_SECONDS / self.request.speed
                    await self._events.put(AnswerText(event.text, event.tokens, start))
                case VoiceSwitch():
                    name = event.voice
                    if voice is not None and self._output is not None:
                        await self._sound(await self._compute(_flush, voice, self._output), 0)
                        voice = None
                case AnswerEnd():
                    if self._output is not None:
                        data = await self._compute(_end, voice, self._output)
                        await self._sound(data, 0, last=True)
                    return event

    async def _compute(
        self, function: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs
    ) -> bytes:
        deadline = self.progress.playback.needed_at(self._services.clock() + FIRST_SOUND_SECONDS)
        return await self._services.workers.run_long(deadline, function, *args, **kwargs)

    async def _sound(self, data: bytes, tokens: int, *, last: bool = False) -> None:
        """Hand on sound; at the beginning only once there is enough to start with."""
        progress = self.progress
        progress.made += len(data) / self._bytes_per_second
        self._kept += data
        self._kept_tokens += tokens
        # Groups may give no sound yet: a client would take an empty piece for the beginning.
        if not last and not (self._kept and self._may_start()):
            return
        data, self._kept = self._kept, b""
        tokens, self._kept_tokens = self._kept_tokens, 0
        if data and progress.timeline.first_sound is None:
            progress.timeline.first_sound = self._services.clock()
        if data or tokens:
            await self._events.put(AnswerSound(data, len(data) / self._bytes_per_second, tokens))

    def _may_start(self) -> bool:
        """Whether what is made lasts until more is; always, once the answer has started."""
        if self.progress.timeline.first_sound is not None:
            return True
        return self._start_gate.opens(self.progress.made, self._services.workers.busy_for())

    async def _pace(self) -> None:
        """Wait while enough sound is made: for a speculation, or ahead of the playback."""
        if not self._wanted.is_set() and self.progress.made >= SPECULATION_SECONDS:
            await self._wanted.wait()
        if self._paced:
            ahead = (
                self.progress.playback.ahead(self._services.clock()) - self._services.ahead_seconds
            )
            if ahead > 0:
                await self._services.clock.sleep(ahead)


def _push(voice: VoiceStream, output: OutputConverter, groups: list[int]) -> bytes:
    return output.push(voice.push(groups))


def _flush(voice: VoiceStream, output: OutputConverter) -> bytes:
    return output.push(voice.flush())


def _end(voice: VoiceStream | None, output: OutputConverter) -> bytes:
    return b"" if voice is None else _flush(voice, output) + output.flush()


def error_code(error: AqaaError) -> str:
    """The error code that a client sees."""
    match error:
        case EngineDiedError():
            return "engine_died"
        case EngineBusyError():
            return "engine_busy"
        case PromptError():
            return "context_length_exceeded"
        case _:
            return "server_error"
