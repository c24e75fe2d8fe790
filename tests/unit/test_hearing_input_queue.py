"""A microphone's sound is heard at once; what comes faster than anybody speaks, in its own time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.compute.model import Work, work_of
from aqaa.server.hearing.input_queue import LATE_SECONDS, AppendAudio, InputQueue
from aqaa.server.urgency import Kind

BYTES_A_SECOND = 2 * TOKENIZER_RATE


class Hearing:
    """A queue whose speech input only counts, and whose executor notes what is asked of it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.received = 0
        self.asked: list[tuple[Kind, float]] = []  # kind; seconds from now until it is due
        ignored: Any = lambda *_: None  # noqa: E731
        self._queue = InputQueue(
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            lambda: self.now,  # type: ignore[arg-type]
            on_speech=ignored,
            on_sound=ignored,
            on_bad_audio=ignored,
        )
        self._working = asyncio.create_task(self._queue.run())

    def push(self, data: bytes) -> Work[list[Any]]:
        def count() -> list[Any]:
            self.received += len(data) // 2
            return []

        return work_of(count)

    async def run(self, work: Work[list[Any]], kind: Kind, deadline: float) -> list[Any]:
        self.asked.append((kind, deadline - self.now))
        with pytest.raises(StopIteration) as end:
            next(work)
        told: list[Any] = end.value.value
        return told

    async def hear(self, seconds: float) -> None:
        """So much sound comes now, in one piece or more."""
        data = bytes(round(seconds * BYTES_A_SECOND))
        self._queue.put(AppendAudio(data, self.now, epoch=0))
        await self._queue.worked_off()

    def close(self) -> None:
        self._working.cancel()


@pytest.fixture
async def hearing() -> Any:
    hearing = Hearing()
    yield hearing
    hearing.close()


async def test_a_microphones_sound_is_due_at_once_also_after_the_link_was_down(
    hearing: Hearing,
) -> None:
    for _ in range(50):
        hearing.now += 0.1
        await hearing.hear(0.1)
    hearing.now += LATE_SECONDS
    await hearing.hear(LATE_SECONDS)
    assert set(hearing.asked) == {(Kind.FIRST, 0.0)}


async def test_sound_that_comes_faster_is_due_when_it_would_have_been_spoken(
    hearing: Hearing,
) -> None:
    await hearing.hear(30.0)  # pieces of three seconds
    assert hearing.asked[0] == (Kind.FIRST, 0.0)
    later = [(Kind.SPECULATIVE, 3.0 * piece - LATE_SECONDS) for piece in range(1, 10)]
    assert hearing.asked[1:] == [(kind, pytest.approx(due)) for kind, due in later]


async def test_silence_before_it_is_no_credit(hearing: Hearing) -> None:
    await hearing.hear(0.1)
    hearing.now += 3600.0
    await hearing.hear(30.0)
    assert [kind for kind, _ in hearing.asked].count(Kind.FIRST) == 2
