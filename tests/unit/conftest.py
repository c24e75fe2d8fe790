"""One live session over scripted models; modules whose session is another say so themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from live_talk import FakeClock, Talk
from scripted import ScriptedEngine, scripted_parts


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def talk(engine: ScriptedEngine) -> AsyncIterator[Talk]:
    clock = FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock)
    yield talk
    await talk.close()
