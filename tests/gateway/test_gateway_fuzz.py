"""Whatever a client's events look like: no fault, no session left, each answer ended once."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest
from fuzz import SOON, fuzz
from scripted_server import Served

EVENTS = int(os.environ.get("AQAA_FUZZ_EVENTS", "20000"))


async def test_mutated_events_harm_nothing(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    found = await fuzz(served, EVENTS, seed=1)
    async with asyncio.timeout(SOON):
        await served.state.sessions.empty()
    assert found.faults == []
    assert found.events > EVENTS / 2
    assert found.responses > 0
    assert not served.engine.running
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
