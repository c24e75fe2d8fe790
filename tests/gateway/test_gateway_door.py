"""Keys, client secrets, web origins and proxies: who comes in, and whom a page is told to ask."""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from scripted import ScriptedEngine
from scripted_server import Served, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from aqaa.models.errors import ConfigError
from aqaa.server.gateway.origins import ForwardedHeaders
from aqaa.server.gateway.server import listen

KEY = {"Authorization": "Bearer right"}
SPELLINGS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"  # of base64


@pytest.fixture
async def locked(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with serving(engine, api_keys=["right", "other"]) as served:
        yield served


async def secret(served: Served, session: dict[str, Any], key: str = "right") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=served.http, headers=headers) as http:
        return await http.post("/v1/realtime/client_secrets", json={"session": session})


async def first_event(served: Served, secret: str) -> Any:
    offered = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{secret}")]
    async with connect(served.ws, subprotocols=offered) as client:
        return json.loads(await client.recv())


async def test_a_client_secret_opens_conversations_and_nothing_else(locked: Served) -> None:
    value = (await secret(locked, {"instructions": "be brief"})).json()["value"]
    opened = await first_event(locked, value)
    assert opened["session"]["instructions"] == "be brief"
    assert (await secret(locked, {}, key=value)).status_code == 401
    async with httpx.AsyncClient(
        base_url=locked.http, headers={"Authorization": f"Bearer {value}"}
    ) as http:
        assert (await http.get("/v1/models")).status_code == 401


async def test_another_gateway_with_the_same_key_accepts_the_secret(locked: Served) -> None:
    value = (await secret(locked, {}, key="other")).json()["value"]
    async with serving(ScriptedEngine(), api_keys=["other"]) as same:
        assert (await first_event(same, value))["type"] == "session.created"
    async with serving(ScriptedEngine(), api_keys=["right"]) as without:
        assert (await first_event(without, value))["type"] == "error"


@pytest.mark.parametrize("change", [lambda s: s[:-1] + "A", lambda s: s + "A", lambda s: s[:20]])
async def test_a_secret_that_was_changed_opens_nothing(locked: Served, change: Any) -> None:
    value = (await secret(locked, {})).json()["value"]
    changed = change(value) if change(value) != value else value[:-1] + "B"
    assert (await first_event(locked, changed))["error"]["code"] == "invalid_api_key"


async def test_a_secret_opens_nothing_in_another_spelling_of_its_bytes(locked: Served) -> None:
    value = (await secret(locked, {})).json()["value"]
    last = SPELLINGS.index(value[-1])  # its two lowest bits are nothing of the signature
    other = value[:-1] + SPELLINGS[last ^ 1]
    assert (await first_event(locked, other))["error"]["code"] == "invalid_api_key"


async def test_a_secret_carries_no_more_settings_than_fit_a_header(locked: Served) -> None:
    def told(size: int) -> dict[str, Any]:
        return {"tools": [{"type": "function", "name": "lamp", "description": "x" * size}]}

    refused = await secret(locked, told(5000))
    assert refused.status_code == 400
    assert "4096" in refused.json()["error"]["message"]
    assert (await secret(locked, told(3500))).status_code == 200


@pytest.mark.parametrize(
    "origin", ["[", "[::1", "http://[", "http://x:99999999", "null", "\u00e9", "http://:1"]
)
async def test_an_origin_that_is_no_url_is_refused_with_a_reason(
    served: Served, origin: str
) -> None:
    headers = {"Origin": origin.encode("latin-1")}
    async with httpx.AsyncClient(base_url=served.http) as http:
        reply = await http.get("/v1/voices", headers=headers)  # type: ignore[arg-type]
    assert reply.status_code == 403
    assert "AQAA_ALLOWED_ORIGINS" in reply.json()["error"]["message"]


async def test_a_key_of_any_bytes_is_refused_or_known(locked: Served) -> None:
    key = "Bearer cl\u00e9\u20ac".encode()
    async with httpx.AsyncClient(base_url=locked.http) as http:
        refused = await http.get("/v1/models", headers=[(b"Authorization", key)])
        async with serving(ScriptedEngine(), api_keys=["cl\u00e9\u20ac"]) as known:
            url = f"{known.http}/v1/models"
            accepted = await http.get(url, headers=[(b"Authorization", key)])
    assert (refused.status_code, accepted.status_code) == (401, 200)


async def test_the_own_page_is_known_behind_a_proxy_that_drops_the_port_from_host(
    served: Served,
) -> None:
    headers = {"Host": "127.0.0.1", "Origin": served.http}
    async with httpx.AsyncClient(base_url=served.http) as http:
        assert (await http.get("/v1/voices", headers=headers)).status_code == 200
        other = headers | {"Origin": f"http://other.example:{served.port}"}
        assert (await http.get("/v1/voices", headers=other)).status_code == 403


@pytest.mark.parametrize(("trusted", "status"), [(["127.0.0.0/8"], 200), (["10.0.0.1"], 403)])
async def test_only_a_named_proxy_is_believed_which_host_the_page_came_from(
    engine: ScriptedEngine, trusted: list[str], status: int
) -> None:
    headers = {
        "Origin": "https://talk.example",
        "X-Forwarded-Host": "talk.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.9",
    }
    async with (
        serving(engine, trusted_proxies=trusted) as served,
        httpx.AsyncClient(base_url=served.http, headers=headers) as http,
    ):
        assert (await http.get("/v1/voices")).status_code == status


async def test_a_proxy_is_known_by_its_address_on_a_server_of_both_protocols() -> None:
    """Where IPv4 comes to an IPv6 socket its addresses look like this one."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"])[b"host"])

    proxied = ForwardedHeaders(app, ["10.0.0.0/8"])
    headers = [(b"host", b"inside"), (b"x-forwarded-host", b"talk.example")]
    for address in ("::ffff:10.1.2.3", "10.1.2.3", "::ffff:11.1.2.3", "::1"):
        scope = {"type": "http", "scheme": "http", "headers": headers, "client": (address, 1)}
        await proxied(scope, None, None)  # type: ignore[arg-type]
    assert seen == [b"talk.example", b"talk.example", b"inside", b"inside"]


@pytest.mark.parametrize("host", ["no.such.name.invalid", "a..b", "x" * 70])
def test_an_address_that_is_none_is_one_clear_line(host: str) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"), listen(host, 0):
        pass


@pytest.mark.parametrize("stripped", [True, False], ids=["prefix stripped", "prefix kept"])
async def test_behind_a_path_prefix_everything_is_found(
    engine: ScriptedEngine, stripped: bool
) -> None:
    prefix = "" if stripped else "/talk"
    async with (
        serving(engine, root_path="/talk") as served,
        httpx.AsyncClient(base_url=served.http) as http,
    ):
        for path in ("/", "/app.js", "/health/ready", "/v1/models"):
            assert (await http.get(prefix + path)).status_code == 200, path
        async with connect(served.ws.replace("/v1", f"{prefix}/v1")) as client:
            assert "session.created" in str(await client.recv())


async def test_a_slash_behind_the_path_is_the_same_endpoint(served: Served) -> None:
    async with connect(f"{served.ws}/?model=scripted") as client:
        assert "session.created" in str(await client.recv())


async def test_a_wrong_websocket_path_is_not_found_and_says_where_to_go(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(served.ws.replace("/v1/realtime", "/v1/real"))
    assert refused.value.response.status_code == 404
    assert b"/v1/realtime" in (refused.value.response.body or b"")
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_nor_is_there_a_websocket_where_the_page_is_behind_a_path_prefix(
    engine: ScriptedEngine,
) -> None:
    async with serving(engine, root_path="/talk") as served:
        with pytest.raises(InvalidStatus) as refused:
            await connect(served.ws.replace("/v1/realtime", "/talk"))
    assert refused.value.response.status_code == 404


async def test_a_secret_whose_type_is_null_is_for_conversations(served: Served) -> None:
    async with httpx.AsyncClient(base_url=served.http) as http:
        wanted = {"session": {"type": None}}
        reply = await http.post("/v1/realtime/client_secrets", json=wanted)
    assert reply.json()["session"]["type"] == "realtime"


async def test_a_secret_that_demands_a_call_of_no_declared_function_is_refused(
    locked: Served,
) -> None:
    tools = [{"type": "function", "name": "make_tea"}]
    wanted = {"tools": tools, "tool_choice": {"type": "function", "name": "fly"}}
    reply = await secret(locked, wanted)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "session.tool_choice")


async def test_a_secret_that_demands_a_call_which_cannot_be_written_opens_nothing(
    locked: Served,
) -> None:
    tea = {"type": "object", "properties": {"\u8336": {}}, "required": ["\u8336"]}
    tools = [{"type": "function", "name": "make_tea", "parameters": tea}]
    for choice in ("required", {"type": "function", "name": "make_tea"}):
        wanted = {"tools": tools, "tool_choice": choice}
        reply = await secret(locked, wanted)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "session.tool_choice")
        assert "'make_tea' cannot be called" in error["message"]
        # A gateway whose model writes more may have made it.
        keys = locked.state.keys
        value, _ = keys.make_secret(keys.check_key("right").name, 600, wanted)
        assert (await first_event(locked, value))["error"]["message"] == error["message"]


HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    "Sec-WebSocket-Version": "13",
}


async def handshake(served: Served, path: str = "/v1/realtime", **headers: str) -> bytes:
    """The first line of what comes, and the last; the server must end the connection itself."""
    given = HANDSHAKE | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(5):
        head = await reader.readline()
        reply = head + (b"" if b" 101 " in head else await reader.read())
    writer.close()
    return reply


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"Content_Length": "5"}, b"cannot be read: unsupported request body"),
        ({"Transfer_Encoding": "chunked"}, b"cannot be read: "),
        ({"path": f"/v1/realtime?instructions={'a' * 9000}"}, b"cannot be read: "),
        ({"Sec_WebSocket_Protocol": "openai-insecure-api-key.\u00e9"}, b"plain ASCII"),
        ({"Sec_WebSocket_Key": "\u00e9"}, b"plain ASCII"),
        ({"Sec_WebSocket_Version": "12"}, b"Sec-WebSocket-Version"),
    ],
    ids=["a body", "chunks", "a long line", "subprotocol", "key", "version"],
)
async def test_a_handshake_that_cannot_be_read_is_refused_in_words(
    served: Served, caplog: pytest.LogCaptureFixture, given: dict[str, str], words: bytes
) -> None:
    reply = await handshake(served, **given)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert words in reply
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    assert not served.server.server_state.connections


async def test_a_handshake_that_says_it_has_no_body_is_one(served: Served) -> None:
    assert b" 101 " in await handshake(served, Content_Length="0")


async def test_a_refused_origin_of_any_letters_is_told_and_is_no_fault(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(
        served.ws, additional_headers={"Origin": "http://" + "\u00e9" * 90}
    ) as client:
        assert "may not connect" in str(await client.recv())
        await client.wait_closed()
    assert client.close_code == 1008
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_openais_client_in_a_browser_passes_its_preflight(engine: ScriptedEngine) -> None:
    page = "https://app.example"
    asked = "authorization,content-type,x-stainless-arch,x-stainless-os,x-stainless-retry-count"
    headers = {
        "Origin": page,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
    }
    async with (
        serving(engine, allowed_origins=[page]) as served,
        httpx.AsyncClient(base_url=served.http, headers=headers) as http,
    ):
        reply = await http.options("/v1/chat/completions")
    assert reply.status_code == 200
    assert "x-stainless-os" in reply.headers["access-control-allow-headers"]


async def test_a_refused_page_is_told_on_the_socket_which_setting_helps(served: Served) -> None:
    async with connect(served.ws, origin=Origin("http://localhost:5173")) as client:
        error = json.loads(await client.recv())["error"]
    assert error["code"] == "origin_not_allowed"
    assert "AQAA_ALLOWED_ORIGINS" in error["message"]


@pytest.mark.parametrize("query", ["call_id=rtc_1", "model=nano&call_id=rtc_1"])
async def test_a_second_controller_of_a_call_is_refused_and_no_fresh_session_opened(
    served: Served, query: str
) -> None:
    async with connect(f"{served.ws}?{query}") as client:
        error = json.loads(await client.recv())["error"]
        await client.wait_closed()
    assert (error["code"], client.close_code) == ("invalid_value", 1008)
    assert "call" in error["message"]
