"""The task that runs a session's ears: jobs in order, in worker threads, reports back on the loop.

Reports carry the epoch of the audio they are about. A client that commits or clears its buffer
begins a new epoch: what the ears still say about the sound before is no longer news.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError
from aqaa.server.audio.wire import InputConverter
from aqaa.server.clock import Clock
from aqaa.server.compute.workers import Workers
from aqaa.server.hearing.ears import Ears, Heard
from aqaa.server.hearing.turn_detector import TurnRules

P = ParamSpec("P")
T = TypeVar("T")

JOB_BYTES = 96_000  # of audio in one job, 1 s of pcm16 at 48 kHz: a long upload lets others through
BACKLOG_BYTES = 2_000_000  # of audio that waits (20 s of the same): then the socket is not read


@dataclass(frozen=True)
class Hear:
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
class ConfigureEars:
    """New turn detection, and a new format if there is a converter."""

    converter: Callable[[], InputConverter] | None
    rules: TurnRules | None


@dataclass(frozen=True)
class Tokenise:
    """Sound that came inside an item."""

    item_id: str
    data: bytes
    converter: Callable[[], InputConverter]


@dataclass(frozen=True)
class SuppressIdle:
    """The assistant will be speaking for so many seconds."""

    seconds: float


Job = Hear | CommitBuffer | ClearBuffer | ConfigureEars | Tokenise | SuppressIdle


class Listening:
    """The queue before the ears. `put` never waits; `room` does, when too much is waiting."""

    def __init__(
        self,
        ears: Ears,
        workers: Workers,
        clock: Clock,
        *,
        heard: Callable[[Heard, Hear], None],
        tokenised: Callable[[str, list[int]], None],
        unusable: Callable[[AudioError], None],
    ) -> None:
        """Reports go to the callbacks: of a live stream, of an item's whole sound, of bad audio."""
        self._ears = ears
        self._workers = workers
        self._clock = clock
        self._heard = heard
        self._tokenised = tokenised
        self._unusable = unusable
        self._jobs: deque[Job] = deque()
        self._waiting_bytes = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, job: Job) -> None:
        """Add a job; they are done in order."""
        self._more.set()
        if not isinstance(job, Hear):
            self._jobs.append(job)
            return
        for begin in range(0, len(job.data), JOB_BYTES):
            self._jobs.append(replace(job, data=job.data[begin : begin + JOB_BYTES]))
        self._waiting_bytes += len(job.data)
        if self._waiting_bytes > BACKLOG_BYTES:
            self._room.clear()

    async def room(self) -> None:
        """Wait until little enough is waiting."""
        await self._room.wait()

    async def run(self) -> None:
        """Work, until cancelled."""
        while True:
            if not self._jobs:
                self._more.clear()
                await self._more.wait()
            await self._do(self._next())

    def _next(self) -> Job:
        """The next job; appends that came one after the other are one, as far as they may be."""
        job = self._jobs.popleft()
        if not isinstance(job, Hear):
            return job
        pieces = [job.data]
        size = len(job.data)
        while self._jobs and isinstance(following := self._jobs[0], Hear):
            if following.epoch != job.epoch or size + len(following.data) > JOB_BYTES:
                break
            self._jobs.popleft()
            pieces.append(following.data)
            size += len(following.data)
            job = following
        self._waiting_bytes -= size
        if self._waiting_bytes <= BACKLOG_BYTES:
            self._room.set()
        return Hear(b"".join(pieces), job.arrived, job.epoch)

    async def _do(self, job: Job) -> None:
        try:
            match job:
                case Hear():
                    for heard in await self._call(self._ears.hear, job.data):
                        self._heard(heard, job)
                case CommitBuffer():
                    self._tokenised(job.item_id, await self._call(self._ears.commit))
                case Tokenise():
                    tokens = await self._workers.run_long(
                        self._clock(), self._ears.tokenise, job.converter, job.data
                    )
                    self._tokenised(job.item_id, tokens)
                case ClearBuffer():
                    self._ears.clear()
                case ConfigureEars():
                    self._ears.configure(job.converter, job.rules)
                case SuppressIdle():
                    self._ears.suppress_idle_until(
                        self._ears.received + round(job.seconds * TOKENIZER_RATE)
                    )
        except AudioError as error:
            if isinstance(job, CommitBuffer | Tokenise):
                self._tokenised(job.item_id, [])
            self._unusable(error)

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._workers.run(self._clock(), function, *args, **kwargs)
