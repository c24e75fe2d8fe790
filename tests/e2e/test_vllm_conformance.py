"""The shared engine suite on the real vLLM: in this process, and served over HTTP."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from engine_conformance import EngineConformance
from vllm_server import engine_core

from aqaa.server.engine.contract import Engine

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

BLOCK = 16


class TestVllmEngine(EngineConformance):
    grain = BLOCK

    @pytest.fixture
    def engine(self, vllm_engine):
        return vllm_engine

    async def kill(self, engine: Engine) -> None:
        """kill -9 of vLLM's engine core below this process."""
        alone = [p for p in psutil.Process().children() if "Worker_TP" not in str(p.children())]
        engine_core(alone).kill()


class TestVllmHttpEngine(EngineConformance):
    grain = BLOCK

    @pytest.fixture
    def engine(self, vllm_http_engine, vllm_server):
        self.server = vllm_server
        return vllm_http_engine

    async def kill(self, engine: Engine) -> None:
        """kill -9 of the engine core below the server."""
        self.server.kill_decoder()

    async def revive(self, engine: Engine) -> None:
        """A supervisor starts the server again; the engine needs nothing."""
        await asyncio.to_thread(self.server.restart)
