"""What is sent faster than live gives way to first sounds; a microphone never does."""

from __future__ import annotations

import asyncio

import pytest

from aqaa.server.gateway.intake import LIVE_BYTES, WAITING_RATE, Inflow, Intake


class Waiting:
    """Somebody waits until a given time; the clock goes only while `Intake` sleeps."""

    def __init__(self, until: float) -> None:
        self.now = 1000.0
        self._until = self.now + until
        self.unheard: set[object] = set()
        if until:
            self.unheard.add(self)
        self.intake = Intake(self.unheard, lambda: self.now, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now >= self._until:
            self.unheard.clear()
        await asyncio.sleep(0)


async def test_beside_a_first_sound_all_uploads_together_have_one_rate_each_in_its_turn() -> None:
    waiting = Waiting(until=60.0)
    began, ended = waiting.now, []

    async def upload(size: int) -> None:
        inflow = Inflow(waiting.intake)
        await inflow.took(LIVE_BYTES)
        await inflow.took(size)
        ended.append(waiting.now - began)

    await asyncio.gather(upload(WAITING_RATE), upload(WAITING_RATE // 2), upload(WAITING_RATE))
    assert ended == pytest.approx([1.0, 1.5, 2.5])


async def test_an_upload_goes_on_as_soon_as_the_first_sound_is_there() -> None:
    waiting = Waiting(until=0.3)
    began = waiting.now
    await Inflow(waiting.intake).took(LIVE_BYTES + 100 * WAITING_RATE)
    assert waiting.now - began == pytest.approx(0.3, abs=0.02)


async def test_while_nobody_waits_nothing_does() -> None:
    waiting = Waiting(until=0.0)
    began = waiting.now
    await Inflow(waiting.intake).took(100 * WAITING_RATE)
    assert waiting.now == began


async def test_a_microphone_of_any_rate_never_waits_not_even_after_its_link_was_down() -> None:
    waiting = Waiting(until=60.0)
    second = 192_000 * 2 * 4 // 3  # base64 of pcm16
    inflow = Inflow(waiting.intake)
    began = waiting.now
    await inflow.took(second // 2)
    for _ in range(100):
        waiting.now += 0.1
        await inflow.took(second // 10)
    assert waiting.now - began == pytest.approx(10.0)
