"""A real server on a real port, with scripted models behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from scripted import ScriptedEngine, scripted_parts
from sdk_events import read_strictly

from aqaa.server.config import Settings
from aqaa.server.gateway.server import DrainingServer, listen
from aqaa.server.gateway.state import ServerState
from aqaa.server.parts import ModelParts
from aqaa.tokenizers.transcriber import Transcriber


@dataclass
class Served:
    """A running server."""

    port: int
    state: ServerState
    engine: ScriptedEngine
    server: DrainingServer

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    @property
    def scripted_parts(self) -> ModelParts:
        return self.state.parts


@asynccontextmanager
async def serving(
    engine: ScriptedEngine,
    *,
    transcriber: Transcriber | None = None,
    strict: bool = True,
    **settings: Any,
) -> AsyncIterator[Served]:
    """A server; `strict`: what it sends is read by openai-python's types, and must be of them."""
    parts = scripted_parts(engine, transcriber=transcriber)
    async with serving_parts(parts, engine, strict=strict, **settings) as served:
        yield served


@asynccontextmanager
async def serving_parts(
    parts: ModelParts, engine: ScriptedEngine, *, strict: bool = True, **settings: Any
) -> AsyncIterator[Served]:
    """As `serving`, with these parts, whose engine is `engine`; their executor is closed after."""
    with read_strictly() if strict else nullcontext(), listen("127.0.0.1", 0) as listener:
        state = ServerState.of(Settings(model="nowhere", **settings), parts)
        server = DrainingServer(state.settings)
        server.open(state)
        task = asyncio.create_task(server.serve([listener]))
        await server.listening.wait()
        yield Served(listener.getsockname()[1], state, engine, server)
        server.should_exit = True
        await task
    parts.services.executor.close()
