"""What a connection and a request cost: how long an idle one is kept; and no thread."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
from recordings import recording
from scripted import ScriptedEngine
from scripted_server import Served, serving

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_an_idle_connection_is_kept_as_long_as_the_setting_says(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, keep_alive_seconds=4.0) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(GET)
        await reader.readuntil(b"}")
        await asyncio.sleep(0.5)
        writer.write(GET)  # a proxy that uses it again
        await reader.readuntil(b"}")
        began = time.monotonic()
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        assert time.monotonic() - began > 3.5
        writer.close()


async def test_a_request_needs_no_thread_of_its_own(served: Served) -> None:
    """Where many come at once these threads would take the interpreter from the conversations."""
    async with httpx.AsyncClient(base_url=served.http) as http:
        assert (await http.get("/metrics")).is_success
        assert (await http.get("/v1/models")).is_success
        assert (await http.post("/v1/answer", content=recording())).is_success
    assert [one.name for one in threading.enumerate() if "AnyIO" in one.name] == []
