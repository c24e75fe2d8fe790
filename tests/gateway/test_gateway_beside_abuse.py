"""Beside every abuse a well-behaved conversation goes on: every answer whole, the loop free.

How late its sound is, is not judged here: that needs models that compute, on an idle machine.
"""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from abuse import KINDS, abuse
from loop_watch import BUSY_MS, HELD_MS
from scripted import GROUP_SOUND
from soaking import question
from watched_server import watched_server
from websockets.asyncio.client import ClientConnection, connect

TURNS = 5
SOON = 60.0
SOUND = 6 * GROUP_SOUND * 24_000 / 22_050 * 2  # bytes of the scripted answer
GROWTH = 200 * 2**20  # bytes of memory: bodies of 24 MB and one decoded recording are in them


async def answer(client: ClientConnection) -> tuple[str, str, int]:
    """An answer's status, words and bytes of sound."""
    sound = 0
    async with asyncio.timeout(SOON):
        while True:
            event = json.loads(await client.recv())
            if event["type"] == "response.output_audio.delta":
                sound += len(base64.b64decode(event["delta"]))
            if event["type"] == "response.done":
                done = event["response"]
                return done["status"], done["output"][0]["content"][0]["transcript"], sound


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_goes_on_undisturbed_beside(kind: str) -> None:
    async with (
        watched_server() as server,
        connect(server.ws, max_queue=None, open_timeout=SOON) as client,
    ):
        before = await server.health()
        under_way = abuse(server.http, kind)
        done = await asyncio.to_thread(under_way.__enter__)
        try:
            answers = []
            for _ in range(TURNS):
                await question(client)
                answers.append(await answer(client))
            during = await server.health()
        finally:
            await asyncio.to_thread(under_way.__exit__, None, None, None)
        async with asyncio.timeout(SOON):
            while (after := await server.health()).sessions > 1 or after.answers:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert answers == [("completed", "hello there", pytest.approx(SOUND, abs=4))] * TURNS
    assert during.faults + after.faults == []
    for seen in (during, after):
        assert seen.busy[seen.forgiven][0] < BUSY_MS, seen.busy
        assert seen.held[seen.forgiven][0] < HELD_MS, seen.held
    assert during.rss - before.rss < GROWTH
    assert [what for what in done if what.startswith("wrong")] == []
    assert done, "nothing was done to it"
