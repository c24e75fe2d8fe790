"""A server whose models are still loading: it lives, says what it waits for, and lets nobody in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from scripted import ScriptedEngine, scripted_parts
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from aqaa.server.config import Settings
from aqaa.server.gateway.server import DrainingServer, listen
from aqaa.server.gateway.state import ServerState

SETTINGS = Settings(model="nowhere")


@pytest.fixture
async def loading() -> AsyncIterator[tuple[DrainingServer, str]]:
    """A server before its parts are there, and where it listens."""
    with listen("127.0.0.1", 0) as listener:
        server = DrainingServer(SETTINGS)
        task = asyncio.create_task(server.serve([listener]))
        await server.listening.wait()
        yield server, f"127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


async def test_it_lives_but_is_not_ready_and_names_the_parts_that_load(
    loading: tuple[DrainingServer, str],
) -> None:
    server, place = loading
    server.entrance.loaded("vad")
    async with httpx.AsyncClient(base_url=f"http://{place}") as http:
        live = await http.get("/health/live")
        ready = await http.get("/health/ready")
    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["parts"]["vad"] == "up"
    assert ready.json()["parts"]["engine"] == "loading"


async def test_whoever_asks_is_told_to_try_again(loading: tuple[DrainingServer, str]) -> None:
    _, place = loading
    async with httpx.AsyncClient(base_url=f"http://{place}") as http:
        response = await http.get("/v1/models")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "server_loading"
    assert response.headers["retry-after"]


async def test_whoever_connects_is_told_to_try_again(loading: tuple[DrainingServer, str]) -> None:
    _, place = loading
    async with connect(f"ws://{place}/v1/realtime", subprotocols=["realtime"]) as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()
    assert client.close_code == 1013


async def test_once_open_it_serves(loading: tuple[DrainingServer, str]) -> None:
    server, place = loading
    parts = scripted_parts(ScriptedEngine())
    server.open(ServerState.of(SETTINGS, parts))
    async with httpx.AsyncClient(base_url=f"http://{place}") as http:
        ready = await http.get("/health/ready")
    assert ready.status_code == 200
    assert set(ready.json()["parts"].values()) == {"up"}
    parts.services.executor.close()
