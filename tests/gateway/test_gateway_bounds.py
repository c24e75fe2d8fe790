"""How slow, how many and how large a client may be before its connection or request is ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from recordings import CHAT, recording
from scripted import ScriptedEngine
from scripted_server import Served, serving
from websockets.asyncio.client import connect

from aqaa.server.gateway.intake import FREE_BYTES, WAITING_RATE

LATE = 0.3  # seconds that clients of these tests are given
SOON = 20.0


@pytest.fixture
async def impatient(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with serving(engine, handshake_seconds=LATE, min_upload_rate=1_000_000) as served:
        yield served


@asynccontextmanager
async def raw(served: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def is_dropped(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection; waits for it."""
    with suppress(ConnectionError):
        async with asyncio.timeout(SOON):
            while await reader.read(65536):
                pass
    return True


UPGRADE = b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


@pytest.mark.parametrize(
    "begin",
    [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n", UPGRADE],
    ids=["nothing", "half a head", "half a handshake"],
)
async def test_a_connection_that_sends_no_whole_head_is_dropped(
    impatient: Served, begin: bytes
) -> None:
    async with raw(impatient) as (reader, writer):
        writer.write(begin)
        began = time.monotonic()
        assert await is_dropped(reader)
        assert time.monotonic() - began < SOON / 2


async def test_half_a_second_request_is_dropped_too(impatient: Served) -> None:
    async with raw(impatient) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /health")
        assert b'{"status":"ok"}' in await reader.readuntil(b"}")
        assert await is_dropped(reader)


async def test_a_body_that_comes_too_slowly_is_refused_and_took_no_place(
    impatient: Served,
) -> None:
    async with raw(impatient) as (reader, writer):
        writer.write(b"POST /v1/answer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nRIFF")
        await asyncio.sleep(LATE / 2)
        assert impatient.state.requests.inside() == 0
        async with asyncio.timeout(SOON):
            assert b" 408 " in await reader.readline()


MUCH = bytes(1_500_000)


async def test_while_somebody_waits_for_an_answer_megabytes_are_read_later_and_are_not_late(
    engine: ScriptedEngine,
) -> None:
    fastest = {"handshake_seconds": LATE, "min_upload_rate": 10**9}
    async with (
        serving(engine, **fastest) as served,
        httpx.AsyncClient(base_url=served.http, timeout=SOON) as http,
    ):
        served.scripted_parts.services.unheard.add("somebody")
        began = time.monotonic()
        refused = await http.post("/v1/answer", content=MUCH)
        took = time.monotonic() - began
    assert refused.status_code == 400  # no sound file; 408 is for who is slow
    assert took >= (len(MUCH) - 2 * FREE_BYTES) / WAITING_RATE > LATE


async def test_a_live_session_is_not_late(impatient: Served) -> None:
    async with connect(impatient.ws) as client:
        assert "session.created" in str(await client.recv())
        await asyncio.sleep(2 * LATE)
        await client.send(json.dumps({"type": "input_audio_buffer.clear"}))
        assert "cleared" in str(await client.recv())


def frame(text: bytes) -> bytes:
    """A client's WebSocket frame of up to 125 bytes, masked with zeros."""
    return bytes((0x81, 0x80 | len(text))) + bytes(4) + text


async def test_who_sends_is_there_though_the_pong_is_late_and_who_is_silent_is_not(
    engine: ScriptedEngine,
) -> None:
    closing = bytes((0x88,))
    async with serving(engine, ping_seconds=1.0) as served, raw(served) as (reader, writer):
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        writer.write(UPGRADE + key)
        await reader.readuntil(b"\r\n\r\n")
        came = bytearray()
        for _ in range(30):  # for three seconds, and never a pong
            writer.write(frame(b'{"type": "input_audio_buffer.clear"}'))
            async with asyncio.timeout(SOON):
                came += await reader.readuntil(b"input_audio_buffer.cleared")
            await asyncio.sleep(0.1)
        assert b"keepalive" not in came
        async with asyncio.timeout(SOON):
            came += await reader.readuntil(b"keepalive")
        assert closing in came


async def test_one_connection_too_many_is_dropped_and_the_others_are_served(
    engine: ScriptedEngine,
) -> None:
    async with (
        serving(engine, max_connections=2) as served,
        raw(served) as (_, first),
        raw(served),
        raw(served) as (third, _),
    ):
        assert await is_dropped(third)
        first.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_pipelined_requests_are_served_one_by_one(served: Served) -> None:
    async with raw(served) as (reader, writer):
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 3000)
        for _ in range(3000):
            async with asyncio.timeout(SOON):
                await reader.readuntil(b'{"status":"ok"}')


async def test_a_client_that_leaves_ends_the_answer_that_it_waited_for(
    engine: ScriptedEngine,
) -> None:
    engine.gate = asyncio.Event()
    async with serving(engine, max_rest_requests=1) as served:
        whole = {**CHAT, "stream": False}
        async with httpx.AsyncClient(base_url=served.http, timeout=0.5) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.post("/v1/chat/completions", json=whole)
        async with asyncio.timeout(SOON):
            await served.state.requests.empty()  # though the engine still waits
        assert engine.running == 0
        engine.gate.set()


async def test_who_may_not_come_in_is_refused_before_the_body_is_read(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, api_keys=["right"]) as served, raw(served) as (reader, writer):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        writer.write(head)
        async with asyncio.timeout(SOON):
            assert b" 401 " in await reader.readline()


async def test_a_key_has_its_share_of_places(engine: ScriptedEngine) -> None:
    engine.gate = asyncio.Event()
    settings = {"api_keys": ["one", "two"], "max_rest_requests_per_key": 1}

    def who(key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"}

    async with (
        serving(engine, **settings) as served,
        httpx.AsyncClient(base_url=served.http, timeout=SOON) as http,
        http.stream("POST", "/v1/chat/completions", json=CHAT, headers=who("one")) as first,
    ):
        lines = first.aiter_lines()  # kept: a collected iterator closes the response
        await anext(lines)
        refused = await http.post("/v1/answer", content=recording(), headers=who("one"))
        engine.gate.set()
        served_too = await http.post("/v1/answer", content=recording(), headers=who("two"))
    assert (refused.status_code, served_too.status_code) == (503, 200)


async def test_no_query_and_no_key_of_a_connection_is_logged(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    headers = {"Authorization": "Bearer swordfish"}
    async with connect(f"{served.ws}?api_key=swordfish", additional_headers=headers) as client:
        await client.recv()
    logged = [r.getMessage() for r in caplog.records if not r.name.startswith("websockets.client")]
    assert not any("swordfish" in line for line in logged)
