"""A running server for each test that asks for one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from scripted import ScriptedEngine
from scripted_server import Served, serving


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def served(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with serving(engine) as running:
        yield running
