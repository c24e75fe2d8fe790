"""Long bodies give way to answers that somebody waits for."""

from __future__ import annotations

import asyncio

import pytest

from aqaa.server.gateway.intake import WAITING_RATE, Intake


class Waiting:
    """Somebody waits until a given time; the clock goes only while `Intake` sleeps."""

    def __init__(self, until: float) -> None:
        self.now = 1000.0
        self._until = self.now + until
        self._unheard: set[object] = {self} if until else set()
        self.intake = Intake(self._unheard, lambda: self.now, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._until:
            self._unheard.clear()
        await asyncio.sleep(0)


async def test_beside_a_first_sound_all_bodies_together_have_one_rate_each_in_its_turn() -> None:
    waiting = Waiting(until=60.0)
    began, ended = waiting.now, []

    async def upload(size: int) -> None:
        await waiting.intake.took(size)
        ended.append(waiting.now - began)

    await asyncio.gather(upload(WAITING_RATE), upload(WAITING_RATE // 2), upload(WAITING_RATE))
    assert ended == pytest.approx([1.0, 1.5, 2.5])


async def test_a_body_goes_on_as_soon_as_the_first_sound_is_there() -> None:
    waiting = Waiting(until=0.3)
    began = waiting.now
    await waiting.intake.took(100 * WAITING_RATE)
    assert waiting.now - began == pytest.approx(0.3, abs=0.02)


async def test_while_nobody_waits_nothing_does() -> None:
    waiting = Waiting(until=0.0)
    began = waiting.now
    await waiting.intake.took(100 * WAITING_RATE)
    assert waiting.now == began
