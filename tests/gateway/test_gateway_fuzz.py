"""Thousands of messages as nobody should send them: each session ends well, the server is whole."""

from __future__ import annotations

import asyncio
import time

import pytest
from fuzzing import Mutator, fuzz
from loop_watch import BUSY_MS, FORGIVEN, HELD_MS, watched_loop
from watched_server import watched_server
from websockets.asyncio.client import connect

SOON = 30.0
BURST = 5000  # messages, in 160 kB


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame; the mask is zero, so the payload stays readable."""
    return bytes([0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0]) + payload


@pytest.mark.deep
async def test_twenty_thousand_mutated_events_harm_nobody() -> None:
    async with watched_server() as server:
        found = await fuzz(server, 20_000)
        told = [await server.health()]  # of all of the fuzz; then of what it leaves
        async with asyncio.timeout(SOON):
            while told[-1].sessions or told[-1].answers:
                await asyncio.sleep(0.05)
                told.append(await server.health())
    assert found.wrong == []
    assert found.events >= 15_000
    assert found.answers > 500
    for health in told:
        assert health.faults == []
        assert health.busy[health.forgiven][0] < BUSY_MS, health.busy
        assert health.held[health.forgiven][0] < HELD_MS, health.held


def test_a_seed_makes_the_same_messages_again() -> None:
    one, again, other = Mutator(1), Mutator(1), Mutator(2)
    messages = [one.message() for _ in range(50)]
    assert messages == [again.message() for _ in range(50)]
    assert messages != [other.message() for _ in range(50)]


async def test_a_loop_that_computes_is_seen() -> None:
    async with watched_loop() as watch:
        await asyncio.sleep(0.05)
        calm = watch.busy.told()[FORGIVEN]
        for _ in range(FORGIVEN + 1):
            asyncio.get_running_loop().call_soon(sum, range(10_000_000))
        await asyncio.sleep(0.02)
    seconds, what = watch.busy.told()[FORGIVEN]
    assert calm[0] < BUSY_MS / 1000 < seconds
    assert "sum" in what


async def test_a_loop_that_is_held_without_computing_is_seen() -> None:
    async with watched_loop() as watch:
        for _ in range(FORGIVEN + 1):
            asyncio.get_running_loop().call_soon(time.sleep, 2 * HELD_MS / 1000)
        await asyncio.sleep(0.02)
    seconds, what = watch.held.told()[FORGIVEN]
    assert watch.busy.told()[FORGIVEN][0] < BUSY_MS / 1000
    assert seconds > HELD_MS / 1000
    assert "sleep" in what


async def test_a_burst_of_small_messages_holds_nobody_up() -> None:
    """One write of thousands of messages: others get their turns between them."""
    async with watched_server() as server, connect(server.ws, max_queue=None) as client:
        await server.health()
        text = '{"type":"response.cancel"}'
        burst = b"".join(masked(1, text.encode()) for _ in range(BURST))
        await client.recv()
        for _ in range(FORGIVEN + 1):
            client.transport.write(burst)
            for _ in range(BURST):
                await client.recv()
        health = await server.health()
    assert health.faults == []
    assert health.busy[health.forgiven][0] < BUSY_MS, health.busy
    assert health.held[health.forgiven][0] < HELD_MS, health.held
