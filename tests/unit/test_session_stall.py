"""Silence in the place of sound that does not come: only where the client does not send it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from aqaa.server.protocol.session_types import ServerVad
from aqaa.server.protocol.types import PcmFormat
from aqaa.server.session import stall
from aqaa.server.session.stall import StallWatch


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stall, "PATIENCE_SECONDS", 0.02)
    monkeypatch.setattr(stall, "STEP_SECONDS", 0.01)


async def test_a_client_that_is_not_read_does_not_stall() -> None:
    rules = ServerVad(silence_duration_ms=0)
    audio = SimpleNamespace(turn_detection=rules, format=PcmFormat())
    machine: Any = SimpleNamespace(
        session=SimpleNamespace(audio=SimpleNamespace(input=audio)), speaking=True
    )
    heard: list[bytes] = []
    hears = True
    watch = StallWatch(machine, heard.append, lambda: hears)
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(0.3)
    assert heard == []
    hears = False
    async with asyncio.timeout(20):
        while not heard:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert set(heard[0]) == {0}
    watching.cancel()
