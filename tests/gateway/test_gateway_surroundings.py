"""What stands between a server and its clients: how long an idle connection is kept for a proxy."""

from __future__ import annotations

import asyncio
import time

from scripted import ScriptedEngine
from scripted_server import serving

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_an_idle_connection_is_kept_as_long_as_the_setting_says(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, keep_alive_seconds=1.0) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(GET)
        await reader.readuntil(b"}")
        await asyncio.sleep(0.5)
        writer.write(GET)  # a proxy that uses it again
        await reader.readuntil(b"}")
        began = time.monotonic()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        assert time.monotonic() - began > 0.9
        writer.close()
