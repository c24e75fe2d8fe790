"""The ASGI application under plain uvicorn that gets signals, and under a host that gets none."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted import ScriptedEngine, pcm, scripted_parts
from serving import free_port
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from aqaa.models.errors import BundleError
from aqaa.server.audio.recordings import RecordingDecoder
from aqaa.server.config import Settings
from aqaa.server.gateway import asgi
from aqaa.server.gateway.asgi import Application
from aqaa.server.runtime import Runtime

SOON = 30.0  # seconds until a test gives up
SUPPORT = Path(__file__).resolve().parents[1] / "support"
QUESTION = base64.b64encode(pcm(1.0, loud=True) + pcm(0.6, loud=False)).decode()


@asynccontextmanager
async def hosted(**environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`uvicorn scripted_asgi:app`, ready; yields the process and where it listens."""
    port = free_port()
    command = ("-m", "uvicorn", "scripted_asgi:app", "--port", str(port), "--log-level", "warning")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--app-dir", str(SUPPORT), env=os.environ | environment
    )
    try:
        async with asyncio.timeout(SOON), httpx.AsyncClient() as http:
            while not await is_ready(http, f"http://127.0.0.1:{port}"):
                assert process.returncode is None
                await asyncio.sleep(0.1)
        yield process, f"127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def is_ready(http: httpx.AsyncClient, base: str) -> bool:
    try:
        return (await http.get(f"{base}/health/ready")).status_code == 200
    except httpx.TransportError:
        return False


async def events_to_the_end(client: ClientConnection) -> list[dict[str, Any]]:
    """All events until the server closes."""
    events: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(SOON):
            while True:
                events.append(json.loads(await client.recv()))
    except ConnectionClosed:
        return events


async def at_answer(client: ClientConnection) -> None:
    """Ask, and come as far as the answer's first sound."""
    await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": QUESTION}))
    async with asyncio.timeout(SOON):
        while json.loads(await client.recv())["type"] != "response.output_audio.delta":
            pass


async def ended(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(SOON):
        return await process.wait()


async def test_a_signal_lets_the_running_answer_end_and_nobody_in() -> None:
    async with hosted() as (process, address), connect(f"ws://{address}/v1/realtime") as busy:
        await at_answer(busy)
        process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient() as http:
            async with asyncio.timeout(SOON):
                while await is_ready(http, f"http://{address}"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert (await http.get(f"http://{address}/health/live")).status_code == 200
        async with connect(f"ws://{address}/v1/realtime") as late:
            await events_to_the_end(late)
        assert late.close_code == 1012
        events = await events_to_the_end(busy)
        done = next(event for event in events if event["type"] == "response.done")
        assert done["response"]["status"] == "completed"
        assert busy.close_code == 1012
        assert await ended(process) in (
            0,
            -signal.SIGTERM,
        )  # uvicorn ends by the signal that it was sent


async def test_a_second_signal_does_not_wait_for_the_answer() -> None:
    async with hosted() as (process, address), connect(f"ws://{address}/v1/realtime") as busy:
        await at_answer(busy)
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.05)  # else the system may make one signal of both
        process.send_signal(signal.SIGTERM)
        events = await events_to_the_end(busy)
        assert "response.done" not in {event["type"] for event in events}
        await ended(process)


class Host:
    """An ASGI server's half of the lifespan."""

    def __init__(self, app: Application) -> None:
        self._asks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._told: asyncio.Queue[str] = asyncio.Queue()
        self._running = asyncio.create_task(
            app({"type": "lifespan", "state": {}}, self._asks.get, self._take)
        )

    async def _take(self, message: MutableMapping[str, Any]) -> None:
        self._told.put_nowait(message["type"])

    async def tell(self, what: str) -> str:
        """What the application says to `lifespan.WHAT`."""
        self._asks.put_nowait({"type": f"lifespan.{what}"})
        async with asyncio.timeout(SOON):
            return await self._told.get()

    async def end(self) -> None:
        await asyncio.gather(self._running, return_exceptions=True)


async def test_the_lifespan_drains_where_no_signal_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "keep_for_good", lambda: None)  # it is for a whole process
    engine = ScriptedEngine(gate=asyncio.Event())
    shared = scripted_parts(engine)
    services = replace(shared.services, recordings=RecordingDecoder())  # the runtime closes it
    parts = replace(shared, services=services)

    async def load(settings: Settings) -> Runtime:
        return Runtime(parts, 0.0)

    app, handler = Application(load), signal.getsignal(signal.SIGTERM)
    host = Host(app)
    assert await host.tell("startup") == "lifespan.startup.complete"
    assert signal.getsignal(signal.SIGTERM) is not handler
    question = {"role": "user", "content": "hi"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        body = {"model": "scripted", "messages": [question]}
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        async with asyncio.timeout(SOON):
            while not engine.running:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        ending = asyncio.create_task(host.tell("shutdown"))
        await asyncio.sleep(0.05)
        assert not ending.done()
        assert (await http.get("/health/ready")).json()["parts"]["gateway"] == "draining"
        assert engine.gate is not None
        engine.gate.set()
        assert (await asking).status_code == 200
    assert await ending == "lifespan.shutdown.complete"
    assert signal.getsignal(signal.SIGTERM) is handler
    assert not engine.alive
    await host.end()


async def test_a_bundle_that_cannot_be_loaded_fails_the_start() -> None:
    async def load(settings: Settings) -> Runtime:
        raise BundleError("no such bundle")

    host = Host(Application(load))
    assert await host.tell("startup") == "lifespan.startup.failed"
    await host.end()
