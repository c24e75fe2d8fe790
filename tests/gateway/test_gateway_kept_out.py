"""What was tried on the server and came to nothing, and is to stay so."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import httpx
import pytest
from scripted import ScriptedEngine
from scripted_server import Served, serving
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

SOON = 20.0
SECOND = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"  # a request that hides in a body


async def said(served: Served, data: bytes) -> bytes:
    """All that comes of these bytes, for as long as something comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(data)
    came = b""
    with suppress(TimeoutError, ConnectionError):
        while True:
            async with asyncio.timeout(0.5):
                if not (more := await reader.read(65536)):
                    break
                came += more
    writer.close()
    return came


def posted(*headers: bytes, body: bytes = SECOND) -> bytes:
    return b"\r\n".join([b"POST /v1/answer HTTP/1.1", b"Host: x", *headers, b"", b""]) + body


LENGTH = f"Content-Length: {len(SECOND)}".encode()


@pytest.mark.parametrize(
    "headers",
    [
        [LENGTH, b"Content-Length: 0"],
        [b"Content-Length: +0"],
        [b"Content-Length: -1"],
        [b"Content-Length: 0x0"],
        [b"Content-Length: 0 0"],
        [b"Content-Length: 0, 38"],
        [b"Content-Length : 0"],
        [b"Content-Length\x0b: 0"],
        [b"Content-Length: 0\x00"],
        [b"Transfer-Encoding: chunked, identity"],
        [b"Transfer-Encoding: xchunked"],
        [b"Transfer-Encoding: chunked\x0b"],
        [b"Transfer-Encoding: gzip, chunked"],
        [b"Transfer-Encoding : chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"],
        [LENGTH, b"X: y\nContent-Length: 0"],
        [b"X: y\rContent-Length: 0"],
        [b"X\x00: y"],
    ],
    ids=lambda headers: b", ".join(headers).decode(errors="replace")[:40],
)
async def test_no_second_request_hides_in_an_ambiguous_first(
    served: Served, headers: list[bytes]
) -> None:
    came = await said(served, posted(*headers))
    assert b'{"status":"ok"}' not in came
    assert came.startswith(b"HTTP/1.1 4") or not came


@pytest.mark.parametrize("size", [b"0x5", b"-1", b"5 5", b"g", b"", b"+5", b"9" * 30])
async def test_a_chunk_of_no_known_size_ends_the_connection(served: Served, size: bytes) -> None:
    chunk = size + b"\r\nhello\r\n0\r\n\r\n"
    came = await said(served, posted(b"Transfer-Encoding: chunked", body=chunk + SECOND))
    assert b'{"status":"ok"}' not in came


@pytest.mark.parametrize(
    "path",
    [
        "/../client.py",
        "/%2e%2e/client.py",
        "/..%2fclient.py",
        "/..%5cclient.py",
        "/worklets/../../client.py",
        "/worklets/..%2f..%2fclient.py",
        "//../client.py",
        "/....//client.py",
        "/%252e%252e/client.py",
        "/app.js/../../client.py",
        "/%00/../client.py",
        "//etc/passwd",
        "/~root/.profile",
    ],
)
async def test_no_path_leads_out_of_the_page(served: Served, path: str) -> None:
    came = await said(
        served, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert came.startswith(b"HTTP/1.1 404")
    assert b"import" not in came


async def test_no_compression_is_agreed_on(served: Served) -> None:
    async with connect(served.ws, compression="deflate") as client:
        assert client.response is not None
        assert "sec-websocket-extensions" not in client.response.headers


@pytest.mark.parametrize(("more", "taken"), [(0, True), (1, False)])
async def test_a_message_may_have_sixteen_mebibytes_and_no_more(
    served: Served, more: int, taken: bool
) -> None:
    message = json.dumps({"type": "input_audio_buffer.clear"})
    async with connect(served.ws, compression=None, max_queue=None) as client:
        await client.recv()
        with suppress(ConnectionClosed):
            await client.send(message + " " * (2**24 + more - len(message)))
            async with asyncio.timeout(SOON):
                assert "cleared" in str(await client.recv())
        assert (client.close_code is None) is taken
        assert taken or client.close_code == 1009


@pytest.mark.parametrize("key", ["ek_swordfish", "swordfish", "sword\u00e9fish"])
async def test_a_key_stands_in_no_error_and_no_metric(engine: ScriptedEngine, key: str) -> None:
    headers = [(b"Authorization", f"Bearer {key}".encode("latin-1"))]
    async with (
        serving(engine, api_keys=["mellon"]) as served,
        httpx.AsyncClient(base_url=served.http) as http,
    ):
        refused = await http.get(f"/v1/models?api_key={key}", headers=headers)
        async with connect(f"{served.ws}?api_key={key}") as client:
            told = str(await client.recv())
        known = {"Authorization": "Bearer mellon"}
        accepted = await http.get("/v1/models", headers=known)
        metrics = (await http.get("/metrics")).text
    for text in (refused.text, told, accepted.text, metrics):
        assert "sword" not in text
        assert "mellon" not in text
