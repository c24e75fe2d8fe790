"""A vocoder, a tokenizer and a decoder that take nano's time of a simulated clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from paced_parts import FIRST_CHUNK_SECONDS, LATER_CHUNK_SECONDS, LINGUISTIC_SECONDS
from scripted import GroupTokenizer, Samples, ScriptedEngine, Voice, Voices
from simulated_time import SimulatedClock

from aqaa.server.engine.contract import SamplingParams
from aqaa.vocoder.stream import CPU_BATCH

FIRST_IDS = 15  # in a first chunk: three groups
SECONDS_PER_ID = 0.0025
MORE_IN_BATCH = 0.8  # of what a chunk takes alone, for each further one


class Moved(Protocol):
    """A clock that is moved."""

    now: float


class Chunked(Voice):
    """Three groups make the first chunk, six each other."""

    _size = FIRST_IDS

    def due(self, *, final: bool = False) -> tuple[Voice, int] | None:
        whole = len(self._waiting) >= self._size or (final and self._waiting)
        return (self, len(self._waiting[: self._size])) if whole else None

    def take(self, sound: Samples) -> Samples:
        self._waiting, self._size = self._waiting[self._size :], 30
        return sound

    def sound(self, token: int) -> Samples:
        return np.tile(super().sound(0), token // 5)


@dataclass(frozen=True)
class SlowVoices(Voices):
    """Each chunk takes its time."""

    kind: type[Voice] = Chunked
    clock: Moved | None = None
    max_batch = CPU_BATCH

    def synthesise(self, chunks: Sequence[tuple[Voice, int]]) -> list[Samples]:
        assert self.clock is not None
        first = any(size == FIRST_IDS for _, size in chunks)
        seconds = FIRST_CHUNK_SECONDS if first else LATER_CHUNK_SECONDS
        self.clock.now += seconds * (1 + MORE_IN_BATCH * (len(chunks) - 1))
        return super().synthesise(chunks)

    def shape_of(self, chunk: tuple[Voice, int]) -> int:
        return chunk[1]


class SlowTokenizer(GroupTokenizer):
    """A slice of a recording takes the time of a call of the larger network."""

    def __init__(self, clock: Moved) -> None:
        self._clock = clock

    def run(self, requests: Sequence[None]) -> Sequence[None]:
        self._clock.now += LINGUISTIC_SECONDS * len(requests)
        return requests


class SlowDecoder(ScriptedEngine):
    """Each id when it is due, however late the ones before were taken."""

    async def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        clock = SimulatedClock()
        due = clock()
        async for token in super().generate(session, prompt, params):
            due += SECONDS_PER_ID
            if due > clock():
                await clock.sleep(due - clock())
            yield token
