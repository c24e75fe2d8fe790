"""The shared engine suite on the embedded engine, which every machine can run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_conformance import CONTEXT, VOCABULARY, EngineConformance
from tiny_step1 import write_step1

from aqaa.server.engine.contract import Engine
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.settings import EmbeddedSettings


class TestEmbeddedEngine(EngineConformance):
    @pytest.fixture
    async def engine(self, tmp_path: Path) -> AsyncIterator[Engine]:
        checkpoint = write_step1(tmp_path, vocab_size=VOCABULARY)
        engine = EmbeddedEngine(checkpoint, EmbeddedSettings(workers=2), CONTEXT)
        await engine.start()
        yield engine
        await engine.close()

    async def kill(self, engine: Engine) -> None:
        await engine.close()
