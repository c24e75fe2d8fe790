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
import math
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakMethod

from aqaa.models.errors import AqaaError, CallError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.answering.answer_events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerSound,
    AnswerText,
)
from aqaa.server.answering.error_code import INVALID_CALL, error_code
from aqaa.server.answering.playback import Playback
from aqaa.server.answering.start_gate import StartGate
from aqaa.server.audio.wire import OutputConverter
from aqaa.server.compute.executor import Job
from aqaa.server.compute.model import Model, Work, work_of
from aqaa.server.dialogue.answer_parser import (
    AnswerParser,
    AudioGroup,
    Malformed,
    TextDelta,
    VoiceSwitch,
)
from aqaa.server.dialogue.call_reader import ToolCall
from aqaa.server.dialogue.tools import Calling
from aqaa.server.engine.contract import SamplingParams, purpose, traceparent
from aqaa.server.observe.latency import Timeline
from aqaa.server.observe.logs import response_id, session_id
from aqaa.server.observe.traces import TurnRecord, traceparent_of
from aqaa.server.parts import Services, VoiceStream
from aqaa.server.urgency import Kind

log = logging.getLogger(__name__)

# Of sound, which is enough for an answer that nobody has asked for yet: two chunks of nano's. The
# third is made while they are played.
SPECULATION_SECONDS = 0.5
# Of sound, ahead of its playing, while another answer has none yet: then the rest can wait.
ENOUGH_AHEAD_SECONDS = 0.6
LOOK_AGAIN_SECONDS = 0.5  # whether it still has none
MOST_PATIENCE = 5.0  # seconds for which an answer waits for that; somebody else may always wait
EVENT_QUEUE_SIZE = 64  # between decoder and vocoder, and between vocoder and reader


# from the decode task to the other
ParsedEvent = TextDelta | AudioGroup | VoiceSwitch | ToolCall | AnswerEnd


@dataclass(frozen=True)
class AnswerRequest:
    """What to answer, and how. A speculation is adopted if the request still equals its own.

    The answer begins with the last `params.answered` ids of the prompt. `heard_groups`: so much of
    its sound was heard, in an answer that was cut: what it gives begins behind it.
    """

    prompt: tuple[int, ...]
    params: SamplingParams
    voice: str
    speed: float
    spoken: bool
    calling: Calling | None = None  # None: it may call nothing
    heard_groups: int = 0


@dataclass
class Progress:
    """How far an answer has come."""

    ids: list[int] = field(default_factory=list)  # of what it says
    call_ids: int = 0  # the others: of calls, and what came after them
    reused: int = 0  # ids of the prompt that the engine had computed before
    timeline: Timeline = field(default_factory=Timeline)
    playback: Playback = field(default_factory=Playback)  # of what was handed to the socket
    left: Playback = field(default_factory=Playback)  # of what the socket has taken
    groups: int = 0  # of audio, taken by the vocoder's half
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
        self.failed = False  # whether it has, read or not
        self._end: AnswerEnd | None = None
        self._trace = services.tracer.begin() if services.tracer is not None else None
        self._services = services
        self._key = key
        self._parser = parser
        self._output = output
        self._bytes_per_second = bytes_per_second
        self._paced = paced
        self._called = False  # whether it has made a call
        self._kept = b""  # sound that is made, until there is enough to hand on
        self._kept_tokens = 0  # audio tokens whose sound that is
        self._told_tokens = 0  # audio tokens whose sound was handed on
        self._opening: asyncio.Task[None] | None = None  # with what is kept, if no more comes
        self._fed_groups = 0  # that the vocoder was given since its last chunk
        self._job: Job[bytes] | None = None  # the latest chunk's
        self._start_gate = StartGate(services.chunk_delays)
        self.patient = False  # nobody can be listening for it yet
        self._yields_until = 0.0
        self._rest: asyncio.Task[None] | None = None  # while enough is made
        self._wanted = asyncio.Event()
        if not paced:
            self._wanted.set()
        elif output is not None:
            services.unheard.add(self)
        self._parsed: asyncio.Queue[ParsedEvent] = asyncio.Queue(EVENT_QUEUE_SIZE)
        self._events: asyncio.Queue[AnswerEvent] = asyncio.Queue(EVENT_QUEUE_SIZE)
        self._tasks = [asyncio.create_task(self._decode()), asyncio.create_task(self._vocode())]

    async def next(self) -> AnswerEvent:
        """The next event; `AnswerEnd` is the last."""
        event = await self._events.get()
        calls = self._services.metrics.calls
        match event:  # calls are counted here: those of a speculation that is dropped are none
            case AnswerCall():
                calls.labels("whole").inc()
            case AnswerEnd():
                self.over, self._end = True, event
                if event.code == INVALID_CALL:
                    calls.labels("malformed").inc()
        return event

    def adopt(self, *, patient: bool = False) -> None:
        """The answer is wanted now: no longer a speculation.

        `patient`: nobody can be listening for it yet. Until somebody may be (`hurry`) it goes
        behind everybody's work, as a download does, and for `MOST_PATIENCE` it makes no sound while
        another answer has none.
        """
        if not self._wanted.is_set():
            if patient:
                self.patient = True
                self._yields_until = self._services.clock() + MOST_PATIENCE
                self._services.unheard.discard(self)
            self._wanted.set()
            self._reorder()

    def hurry(self) -> None:
        """Somebody may be listening for it by now."""
        if self.patient:
            self.patient = False
            if self._rest is not None:
                self._rest.cancel()
            until_more = self._start_gate.until_next()
            self.progress.playback.be_heard(self._services.clock(), until_more)
            if self._output is not None and self.progress.timeline.first_sound is None:
                self._services.unheard.add(self)
            self._reorder()

    def _stop_waiting(self) -> None:
        """Nobody waits for its first sound any more: that is there, or never comes."""
        self._services.unheard.discard(self)

    def _reorder(self) -> None:
        if self._job is not None:
            self._services.executor.change(self._job, *self._urgency())

    async def stop(self) -> None:
        """End the work; no event follows. May be called at any time, and twice."""
        self._record()
        self._stop_waiting()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()  # a cancelled one refers to what it was at: to this answer

    def _record(self) -> None:
        """Make the spans of an answer that somebody wanted, once."""
        context, self._trace = self._trace, None
        tracer = self._services.tracer
        if tracer is None or context is None or not self._wanted.is_set():
            return
        progress, timeline = self.progress, self.progress.timeline
        ids = {"session.id": session_id.get(), "gen_ai.response.id": response_id.get()}
        attributes = {
            **{name: value for name, value in ids.items() if value != "-"},
            "gen_ai.usage.input_tokens": len(self.request.prompt),
            "gen_ai.usage.output_tokens": len(progress.ids) + progress.call_ids,
            "aqaa.reused_tokens": progress.reused,
            "aqaa.spoken_seconds": progress.made,
            "aqaa.speculated": timeline.turn_end is not None and self.started < timeline.turn_end,
            "aqaa.status": "cancelled" if self._end is None else self._end.status,
        }
        error = None if self._end is None else self._end.code
        record = TurnRecord(context, timeline, self.started, attributes, error)
        tracer.record(record, self._services.clock())

    # --- the decoder's half -----------------------------------------------------------------------

    async def _decode(self) -> None:
        purpose.set(self._purpose())  # for this task: the engine's request
        if self._trace is not None:
            traceparent.set(traceparent_of(self._trace))  # for this task: the engine's request
        try:
            over = await self._take_answer()
        except AqaaError as error:
            log.warning("the answer failed: %s", error)
            over = AnswerEnd("failed", error_code(error), str(error))
        except Exception:
            log.exception("the answer failed for a reason that is a bug")
            over = AnswerEnd("failed", "internal_error")
        await self._parsed.put(over)

    async def _take_answer(self) -> AnswerEnd:
        try:
            return await self._take_ids()
        except CallError as error:
            calling = self.request.calling
            if calling is None or not calling.must_call or self._called:
                raise
            log.warning("it must call, and is asked once more: %s", error)
            self._parser = self._parser.anew()
            return await self._take_ids()

    async def _take_ids(self) -> AnswerEnd:
        progress, params = self.progress, self.request.params
        begun = len(self.request.prompt) - params.answered
        for token in self.request.prompt[begun:]:
            await self._take_id(token)
        asked: float | None = None  # for the next id; the first one waits for its prompt, too
        stream = self._services.engine.generate(self._key, self.request.prompt, params)
        async with aclosing(stream) as ids:
            async for token in ids:
                now = self._services.clock()
                if asked is not None:
                    self._services.pace.came(now - asked)
                if progress.timeline.first_token is None:
                    progress.timeline.first_token = now
                    progress.reused = self._services.engine.reused(self._key)
                await self._take_id(token)
                if self._parser.over:
                    break
                asked = self._services.clock()
        progress.reused = self._services.engine.reused(self._key)  # some know it only now
        ended = self._parser.over
        for event in self._parser.finish():
            await self._take_event(event)
        if self._parser.malformed:
            log.warning("%d malformed ids in an answer were dropped", self._parser.malformed)
        return AnswerEnd("completed" if ended else "max_output_tokens")

    async def _take_id(self, token: int) -> None:
        if self._parser.is_said(token):
            self.progress.ids.append(token)
        else:
            self.progress.call_ids += 1
        for event in self._parser.push([token]):
            await self._take_event(event)

    async def _take_event(self, event: object) -> None:
        match event:
            case TextDelta() | VoiceSwitch() | ToolCall():
                self._called |= isinstance(event, ToolCall)
                await self._parsed.put(event)
            case AudioGroup() if event.index >= self.request.heard_groups:
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
            over = AnswerEnd("failed", error_code(error), str(error))
        except Exception:
            log.exception("the answer's sound failed for a reason that is a bug")
            over = AnswerEnd("failed", "internal_error")
        self.failed = over.status == "failed"
        self._stop_opening()
        self._tasks[0].cancel()  # it has ended already, unless it was the vocoder that failed
        self._stop_waiting()
        await self._events.put(over)

    async def _vocode_all(self) -> AnswerEnd:
        voice: VoiceStream | None = None
        name = self.request.voice
        silent = False
        while True:
            event = await self._parsed.get()
            if isinstance(event, ToolCall | AnswerEnd) and not silent:
                await self._end_sound(voice)
                silent = True  # what follows a call is calls
            match event:
                case AudioGroup() if self._output is not None:
                    voice = voice or self._services.vocoder.stream(name, self.request.speed)
                    voice.feed(event.tokens)
                    self.progress.groups += 1
                    self._fed_groups += 1
                    await self._vocode_due(voice, self._output)
                case TextDelta():
                    start = event.group * GROUP_SECONDS / self.request.speed
                    await self._events.put(AnswerText(event.text, event.tokens, start))
                case VoiceSwitch():
                    name = event.voice
                    if voice is not None and self._output is not None:
                        await self._vocode_due(voice, self._output, final=True)
                        voice = None
                case ToolCall():
                    called = AnswerCall(event.name, event.arguments, event.tokens)
                    await self._events.put(called)
                case AnswerEnd():
                    return event

    async def _end_sound(self, voice: VoiceStream | None) -> None:
        """All groups are fed: make what is left of the sound and hand it on."""
        if self._output is None:
            return
        if voice is not None:
            await self._vocode_due(voice, self._output, final=True)
        rest = await self._compute(work_of(self._output.flush))
        await self._hand_on(rest, last=True)

    async def _vocode_due(
        self, voice: VoiceStream, output: OutputConverter, *, final: bool = False
    ) -> None:
        """Make the sound of the chunks that are due, one job a chunk, and hand it on."""
        while (chunk := voice.due(final=final)) is not None:
            await self._pace()
            work = _sound(self._services.synthesis, chunk, voice, output)
            await self._hand_on(await self._compute(work))

    async def _compute(self, work: Work[bytes]) -> bytes:
        """Have a chunk computed, as urgently as its sound is needed."""
        services, asked = self._services, self._services.clock()
        kind, due = self._urgency()
        self._job = services.executor.submit(work, kind, due)
        data = await self._job.future
        if self._fed_groups:
            waited = services.clock() - asked if kind.wanted else None
            self._start_gate.vocoded(self._fed_groups, self._job.seconds, waited)
            self._fed_groups = 0
        return data

    def _urgency(self) -> tuple[Kind, float | None]:
        kind = self._kind()
        if kind is Kind.BULK:
            return kind, None
        due = self.progress.playback.runs_out or self._services.clock()
        # What a speculation has made would be played first: others' beginnings go before its rest.
        return kind, due + self.progress.made if kind is Kind.SPECULATIVE else due

    def _kind(self) -> Kind:
        """What its work is for now. May be asked in any thread."""
        if not self._paced or self.patient:
            return Kind.BULK
        if not self._wanted.is_set():
            return Kind.SPECULATIVE
        return Kind.FIRST if self.progress.playback.runs_out is None else Kind.LIVE

    def _purpose(self) -> Callable[[], Kind]:
        """`_kind`, for the engine to ask, which may keep it longer than this answer lives."""
        kind = WeakMethod(self._kind)
        return lambda: Kind.BULK if (known := kind()) is None else known()

    async def _hand_on(self, data: bytes, *, last: bool = False) -> None:
        """Hand on sound; at the beginning only once there is enough to start with."""
        self.progress.made += len(data) / self._bytes_per_second
        self._kept += data
        self._kept_tokens = self.progress.groups * GROUP_TOKENS - self._told_tokens
        self._stop_opening()
        # Groups may give no sound yet: a client would take an empty piece for the beginning.
        wait = 0.0 if last else self._until_start() if self._kept else math.inf
        if wait == 0:
            await self._release()
        elif wait < math.inf:
            self._opening = asyncio.create_task(self._open())
            self._tasks.append(self._opening)

    async def _open(self) -> None:
        """Start with what is made, once it lasts until more is, if no more comes before."""
        await self._wanted.wait()
        await self._services.clock.sleep(self._until_start())
        self._opening = None  # not to be stopped while it hands on
        await self._release()

    def _stop_opening(self) -> None:
        if self._opening is not None:
            self._opening.cancel()

    async def _release(self) -> None:
        data, self._kept = self._kept, b""
        tokens, self._kept_tokens = self._kept_tokens, 0
        self._told_tokens += tokens
        if data and self.progress.timeline.first_sound is None:
            self.progress.timeline.first_sound = self._services.clock()
            self._stop_waiting()
        if data or tokens:
            await self._events.put(AnswerSound(data, len(data) / self._bytes_per_second, tokens))

    def _until_start(self) -> float:
        """Seconds until what is made lasts until more is; 0 once the answer has started."""
        if self.progress.timeline.first_sound is not None:
            return 0.0
        made = self.progress.made
        runs_out = self._services.clock() + made
        return self._start_gate.wait(made, self._services.executor.delay(Kind.LIVE, runs_out))

    async def _pace(self) -> None:
        """Wait while enough sound is made: for a speculation, or ahead of the playback."""
        if not self._wanted.is_set() and self.progress.made >= SPECULATION_SECONDS:
            await self._wanted.wait()
        while self._paced and (wait := self._too_far_ahead()) > 0:
            self._rest = asyncio.create_task(
                self._services.clock.sleep(min(wait, LOOK_AGAIN_SECONDS))
            )
            try:
                await asyncio.wait([self._rest])
            finally:
                self._rest.cancel()

    def _too_far_ahead(self) -> float:
        """Seconds of sound that are made, or would be, and need not be yet."""
        services = self._services
        if self.patient and services.unheard and services.clock() < self._yields_until:
            return LOOK_AGAIN_SECONDS
        enough = ENOUGH_AHEAD_SECONDS if services.unheard else services.ahead_seconds
        return self.progress.playback.ahead(services.clock()) - enough


def _sound(
    synthesis: Model[Any, Any], chunk: object, voice: VoiceStream, output: OutputConverter
) -> Work[bytes]:
    """The bytes of a chunk that is due."""
    synthesised = yield from synthesis.ask(chunk)
    return output.push(voice.take(synthesised))
