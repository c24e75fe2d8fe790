"""A request's method and path as monitors, proxies and people with a slash too many write them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from scripted_server import Served
from websockets.asyncio.client import connect


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.http) as client:
        yield client


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/v1/models", "/", "/app.js"])
async def test_head_is_answered_as_get_is_without_the_body(
    http: httpx.AsyncClient, path: str
) -> None:
    whole, head = await http.get(path), await http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


@pytest.mark.parametrize(
    "path", ["//v1/models", "/v1//models", "/v1/models/", "/health/live/", "//", "//app.js"]
)
async def test_a_slash_too_many_is_none(served: Served, path: str) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{served.http}{path}")).status_code == 200


@pytest.mark.parametrize("path", ["//v1/realtime", "/v1//realtime/", "/v1/realtime/?model=x"])
async def test_nor_is_it_in_the_path_of_a_conversation(served: Served, path: str) -> None:
    async with connect(served.ws.replace("/v1/realtime", path)) as client:
        assert "session.created" in str(await client.recv())


@pytest.mark.parametrize("url", ["http://x/health/live", "https://x:443//v1/models", "http://x"])
async def test_a_whole_url_is_its_path(served: Served, url: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(f"GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        assert b" 200 " in await reader.readline()
    writer.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_handshake_of_which_a_proxy_made_a_plain_request_is_told_so(
    http: httpx.AsyncClient, method: str
) -> None:
    reply = await http.request(method, "/v1/realtime?model=scripted")
    assert reply.status_code == 426
    assert reply.headers["upgrade"] == "websocket"
    assert "pass the headers Upgrade and Connection" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/audio/speech"), ("GET", "/v1/files"), ("DELETE", "/v1/models/x/y")],
)
async def test_what_there_is_not_is_named_with_where_to_look(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    reply = await http.request(method, path)
    assert reply.status_code == 404
    assert f"no {method} {path} here; /docs" in reply.json()["error"]["message"]


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])  # the last before any web origin
async def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(
    http: httpx.AsyncClient, method: str
) -> None:
    reply = await http.request(method, "/v1/chat/completions")
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    assert reply.json()["error"]["message"] == f"/v1/chat/completions takes POST, not {method}"
