"""A running server that offers only the places that its machine serves well, as it has measured."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import httpx
import pytest
from scripted import Samples, ScriptedEngine, Voice, Voices, scripted_parts
from scripted_server import Served, serving_parts

from aqaa.clients.client import Connection, connect
from aqaa.models.errors import CapacityError
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.places import Need, Places, Punctuality
from aqaa.server.protocol.client_events import ConversationItemCreate, ResponseCreate
from aqaa.server.protocol.server_events import ResponseDone, ServerEvent
from aqaa.server.protocol.types import InputText, Message

MOST = 4
CHUNKS = 8.0  # of a voice that a second of a conversation needs
CHUNK_SECONDS = 0.1  # that each takes here: one such conversation is more than one core can do


class Slow(Voice):
    """Takes its time."""

    def sound(self, token: int) -> Samples:
        time.sleep(CHUNK_SECONDS)
        return super().sound(token)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    punctuality = Punctuality(time.monotonic)
    executor, engine = Executor(1, meters=[punctuality]), ScriptedEngine()
    parts = scripted_parts(engine, voices=Voices(Slow), executor=executor)
    voice = Need(
        cost=partial(executor.seconds, parts.services.synthesis),
        each_second=CHUNKS,
        before_sound=1,
        device="cpu",
    )
    places = Places(1, [voice], punctuality, parts.services.pace)
    measuring = replace(parts, places=places)
    async with serving_parts(measuring, engine, min_sessions=1, max_sessions=MOST) as served:
        yield served


async def test_a_place_that_would_be_served_badly_is_refused_at_once(served: Served) -> None:
    async with connect(served.http) as first:
        async with connect(served.http) as second:
            await until_done(first)
            await anything(second)  # nothing was measured when it came: it was let in
        assert await places(served) == 1
        began = time.monotonic()
        with pytest.raises(CapacityError, match="places are taken"):
            async with connect(served.http) as third:
                await anything(third)
        assert time.monotonic() - began < 1
        await until_done(first)  # who is inside stays


async def until_done(server: Connection) -> None:
    """Ask for an answer and hear it out."""
    item = Message(role="user", content=[InputText(text="hello?")])
    await server.send(ConversationItemCreate(item=item))
    await server.send(ResponseCreate())
    async for event in server:
        if isinstance(event, ResponseDone):
            assert event.response.status == "completed"
            return


async def anything(server: Connection) -> ServerEvent:
    """Its first event."""
    async for event in server:
        return event
    raise AssertionError("closed without a word")


async def places(served: Served) -> float:
    """What `/metrics` says is offered."""
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{served.http}/metrics")).text
    return next(float(line.split()[1]) for line in text.splitlines() if line[:12] == "aqaa_places ")
