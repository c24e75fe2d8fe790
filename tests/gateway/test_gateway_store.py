"""Gateways that share a Redis server: remembered answers, a key's places, and a server away."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from shutil import which
from typing import Any

import httpx
import pytest
from programs import redis_server
from redis.asyncio import Redis
from scripted import ScriptedEngine
from scripted_server import Served, serving
from serving import free_port

from aqaa.clients.client import connect
from aqaa.models.errors import CapacityError
from aqaa.server.gateway import redis_store
from aqaa.server.gateway.redis_store import RedisStore
from aqaa.server.gateway.store import REMEMBER_SECONDS, Place
from aqaa.server.protocol.server_events import SessionCreated

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(which("redis-server") is None, reason="needs redis-server (Debian)"),
]
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "joe", "format": "wav"}}


@dataclass
class Shared:
    """A Redis server, and the process that it is."""

    url: str
    process: subprocess.Popen[bytes]


@pytest.fixture
def shared() -> Iterator[Shared]:
    with redis_server(free_port()) as (url, process):
        yield Shared(url, process)


@pytest.fixture
async def gateways(shared: Shared) -> AsyncIterator[tuple[Served, Served]]:
    settings: dict[str, Any] = {
        "store": shared.url,
        "api_keys": ["one", "two"],
        "max_sessions_per_key": 1,
    }
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(ScriptedEngine(), **settings))
        second = await stack.enter_async_context(serving(ScriptedEngine(), **settings))
        yield first, second
        for served in (first, second):
            await served.state.store.close()


async def chat(served: Served, *messages: dict[str, Any]) -> httpx.Response:
    async with httpx.AsyncClient(base_url=served.http, timeout=20) as http:
        return await http.post(
            "/v1/chat/completions",
            headers={"Authorization": "Bearer one"},
            json={"model": "scripted", "messages": [*messages], **SPOKEN},
        )


def follow_up(audio_id: str) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "audio": {"id": audio_id}},
        {"role": "user", "content": "and then?"},
    ]


async def is_let_in(served: Served, key: str) -> bool:
    """Whether a conversation of this key finds a place; it has left again."""
    async with connect(served.http, api_key=key) as server:
        try:
            async for event in server:
                if isinstance(event, SessionCreated):
                    return True
        except CapacityError:
            pass
    return False


async def test_an_answer_of_one_gateway_is_known_to_the_other_and_for_an_hour(
    gateways: tuple[Served, Served], shared: Shared
) -> None:
    first, second = gateways
    audio = (await chat(first, {"role": "user", "content": "hi"})).json()["choices"][0]["message"][
        "audio"
    ]
    reply = await chat(second, *follow_up(audio["id"]))
    assert reply.status_code == 200
    spoken = tuple(first.engine.answer(()))[:-1]  # without the mark that ended the turn
    prompt = second.engine.prompts[-1]
    assert any(prompt[at : at + len(spoken)] == spoken for at in range(len(prompt)))
    async with Redis.from_url(shared.url) as redis:
        left = await redis.ttl(f"aqaa:audio:{audio['id']}")
    assert REMEMBER_SECONDS - 60 < left <= REMEMBER_SECONDS


async def test_an_answer_that_nobody_gave_is_not_known(gateways: tuple[Served, Served]) -> None:
    reply = await chat(gateways[0], *follow_up("audio_forged"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")


async def test_a_key_has_its_places_once_and_not_once_a_gateway(
    gateways: tuple[Served, Served],
) -> None:
    first, second = gateways
    async with connect(first.http, api_key="one") as server:
        async for event in server:
            if isinstance(event, SessionCreated):
                break
        assert not await is_let_in(second, "one")
        assert await is_let_in(second, "two")
    async with asyncio.timeout(10):  # the store hears in a moment that it has left
        while not await is_let_in(second, "one"):
            pass


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_without_the_store_callers_are_served_and_naming_an_answer_is_refused_in_words(
    gateways: tuple[Served, Served], shared: Shared, blow: signal.Signals
) -> None:
    first, second = gateways
    shared.process.send_signal(blow)
    began = time.monotonic()
    reply = await chat(first, {"role": "user", "content": "hi"})
    audio = reply.json()["choices"][0]["message"]["audio"]
    assert reply.status_code == 200
    assert audio["expires_at"] <= time.time() + 1  # it is not remembered, and says so
    refused = await chat(first, *follow_up(audio["id"]))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert "transcript" in refused.json()["error"]["message"]
    async with connect(first.http, api_key="one") as server:
        async for event in server:
            if isinstance(event, SessionCreated):
                break
        assert not await is_let_in(first, "one")  # each gateway counts for itself
        assert await is_let_in(second, "one")
    assert time.monotonic() - began < 10  # six calls, none of which hangs
    metrics = first.state.parts.services.metrics.text().decode()
    assert re.search(r"^aqaa_store_failures_total [1-9]", metrics, re.M)


async def test_places_that_were_given_while_the_store_was_away_count_when_it_is_back(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(redis_store, "AWAY_SECONDS", 0.1)
    first, second = RedisStore(shared.url), RedisStore(shared.url)
    shared.process.kill()
    shared.process.wait()
    await first.take(Place("sessions", "caller"), 1)
    with redis_server(int(shared.url.rsplit(":")[-1].removesuffix("/0"))):
        async with asyncio.timeout(10):
            while True:
                place = Place("sessions", "caller")
                try:
                    await second.take(place, 1)
                except CapacityError:
                    break
                second.give_back(place)
                await asyncio.sleep(0.05)
        await first.close()
        await second.close()


async def test_the_places_of_a_gateway_that_died_come_back(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "LEASE_SECONDS", 2)
    first, second = RedisStore(shared.url), RedisStore(shared.url)
    await first.take(Place("sessions", "caller"), 1)
    first._renewing.cancel()  # it died: it renews nothing and gives nothing back
    with pytest.raises(CapacityError):
        await second.take(Place("sessions", "caller"), 1)
    async with asyncio.timeout(10):
        while True:
            try:
                await second.take(Place("sessions", "caller"), 1)
                break
            except CapacityError:
                await asyncio.sleep(0.1)
    await first.close()
    await second.close()
