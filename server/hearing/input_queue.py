"""The queue before a session's speech input: jobs in order, computed off the event loop.

Reports carry the epoch of the audio that they are about. A client that commits or clears its buffer
begins a new epoch, and reports about the sound before it are out of date.

Sound that comes faster than anybody speaks is heard in its own time: what is ahead of that is due
when it would have been spoken, and until then nobody waits for it.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError
from aqaa.server.audio.wire import AudioFormat, InputConverter
from aqaa.server.clock import Clock
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Work
from aqaa.server.hearing.speech_events import SpeechEvent, TurnSound
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.transcribing import TurnWindows
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.urgency import Kind

T = TypeVar("T")

JOB_BYTES = 96_000  # of audio in one job: 1 s of pcm16 at 48 kHz, 12 s of G.711
BACKLOG_BYTES = 2_000_000  # of audio that waits (20 s of the same): then the socket is not read
LATE_SECONDS = 2.0  # by which a microphone's sound may be late, and then come all at once


@dataclass(frozen=True)
class AppendAudio:
    """Bytes from the wire, and when they arrived."""

    data: bytes
    arrived: float
    epoch: int


@dataclass(frozen=True)
class CommitBuffer:
    """The client's commit: the buffered sound is this item's."""

    item_id: str


@dataclass(frozen=True)
class ClearBuffer:
    """The client's clear."""


@dataclass(frozen=True)
class ConfigureInput:
    """New turn detection, and a new format if there is a converter."""

    converter: Callable[[], InputConverter] | None
    rules: TurnRules | None


@dataclass(frozen=True)
class SuppressIdle:
    """The assistant speaks for so many more seconds: that is not idle time.

    None: an answer has begun; until it has ended nothing is.
    """

    seconds: float | None


@dataclass(frozen=True)
class LetTurnGo:
    """The turn that ended last does not go on, whoever speaks: its item is gone."""


@dataclass(frozen=True)
class AssistantPlays:
    """In so many seconds the client begins to play this sound of the assistant's."""

    data: bytes
    format: AudioFormat
    seconds: float


@dataclass(frozen=True)
class AssistantStops:
    """The client plays nothing any more."""


InputJob = (
    AppendAudio
    | CommitBuffer
    | ClearBuffer
    | ConfigureInput
    | SuppressIdle
    | LetTurnGo
    | AssistantPlays
    | AssistantStops
)


class InputQueue:
    """One session's input jobs. `put` never waits; `room` does, while too much audio waits."""

    def __init__(
        self,
        speech: SpeechInput,
        executor: Executor,
        clock: Clock,
        *,
        on_speech: Callable[[SpeechEvent, AppendAudio], None],
        on_sound: Callable[[str, TurnSound], None],
        on_bad_audio: Callable[[ProtocolError], None],
    ) -> None:
        """A queue that reports, on the event loop, to its callbacks.

        Args:
            speech: what the jobs are for.
            executor: where it computes.
            clock: tells when jobs are due.
            on_speech: takes what happened in a stream, and the job that brought it.
            on_sound: takes an item's id and its whole sound.
            on_bad_audio: takes what is wrong with audio that is not of the stated format.
        """
        self._speech = speech
        self._executor = executor
        self._clock = clock
        self._on_speech = on_speech
        self._on_sound = on_sound
        self._on_bad_audio = on_bad_audio
        self._jobs: deque[InputJob] = deque()
        self._waiting_bytes = 0
        self._spoken = -math.inf  # when all sound up to now was spoken, at the soonest
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, job: InputJob) -> None:
        """Add a job; they are done in order."""
        if isinstance(job, AppendAudio):
            for begin in range(0, len(job.data), JOB_BYTES):
                data = job.data[begin : begin + JOB_BYTES]
                self._jobs.append(AppendAudio(data, job.arrived, job.epoch))
            self._count(len(job.data))
        else:
            self._jobs.append(job)
        if self._jobs:
            self._idle.clear()
            self._more.set()

    def _count(self, more_bytes: int) -> None:
        self._waiting_bytes += more_bytes
        if self._waiting_bytes > BACKLOG_BYTES:
            self._room.clear()
        else:
            self._room.set()

    async def room(self) -> None:
        """Wait until little enough is waiting."""
        await self._room.wait()

    @property
    def busy(self) -> bool:
        """Whether a job waits, or is being done."""
        return not self._idle.is_set()

    async def worked_off(self) -> None:
        """Wait until all jobs that were put are done."""
        await self._idle.wait()

    async def run(self) -> None:
        """Work, until cancelled."""
        while True:
            if not self._jobs:
                self._idle.set()
                self._more.clear()
                await self._more.wait()
            await self._do(self._next())

    def _next(self) -> InputJob:
        """The next job; appends that follow one another are joined, up to the size of a job."""
        job = self._jobs.popleft()
        if not isinstance(job, AppendAudio):
            return job
        pieces = [job.data]
        size = len(job.data)
        while self._jobs and isinstance(following := self._jobs[0], AppendAudio):
            if following.epoch != job.epoch or size + len(following.data) > JOB_BYTES:
                break
            self._jobs.popleft()
            pieces.append(following.data)
            size += len(following.data)
            job = following
        self._count(-size)
        return AppendAudio(b"".join(pieces), job.arrived, job.epoch)

    async def _do(self, job: InputJob) -> None:
        try:
            match job:
                case AppendAudio():
                    for event in await self._push(job):
                        self._on_speech(event, job)
                case CommitBuffer():
                    # A minute may be left to tokenise: others take their turns between its slices.
                    sound = await self._compute(self._speech.commit(), None)
                    self._on_sound(job.item_id, sound)
                case ClearBuffer():
                    self._speech.clear()
                case ConfigureInput():
                    self._speech.configure(job.converter, job.rules)
                case LetTurnGo():
                    self._speech.let_go()
                case AssistantPlays():
                    self._speech.assistant_plays(job.data, job.format, job.seconds)
                case AssistantStops():
                    self._speech.assistant_stops()
                case SuppressIdle():
                    seconds = math.inf if job.seconds is None else job.seconds
                    self._speech.suppress_idle(seconds)
        except AudioError as error:
            if isinstance(job, CommitBuffer):
                self._on_sound(job.item_id, TurnSound((), TurnWindows(None, ())))
            self._on_bad_audio(ProtocolError("invalid_value", str(error), "audio"))

    async def _push(self, sound: AppendAudio) -> list[SpeechEvent]:
        """Hear it: at once, unless it cannot have been spoken yet."""
        began, before = max(self._spoken, sound.arrived - LATE_SECONDS), self._speech.received
        now, work = self._clock(), self._speech.push(sound.data)
        if began > now:
            events = await self._executor.run(work, Kind.SPECULATIVE, began)
        else:
            events = await self._compute(work, now)
        self._spoken = began + (self._speech.received - before) / TOKENIZER_RATE
        return events

    async def _compute(self, work: Work[T], deadline: float | None) -> T:
        return await self._executor.run(work, Kind.FIRST, deadline)
