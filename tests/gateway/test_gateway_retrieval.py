"""A minute of sound is retrieved over a socket, and nobody else waits for it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from loop_watch import HELD_MS
from scripted import pcm
from watched_server import watched_server
from websockets.asyncio.client import ClientConnection, connect

SECONDS = 55.0
SOON = 60.0
MOST_BYTES = 8 * 1024 * 1024  # of a message, that openai-agents takes


async def until(client: ClientConnection, kind: str) -> Any:
    async with asyncio.timeout(SOON):
        while (event := json.loads(await client.recv()))["type"] != kind:
            assert event["type"] != "error", event
    return event


async def test_a_long_item_is_retrieved_again_and_again_by_who_reads_nothing_meanwhile() -> None:
    sound = base64.b64encode(pcm(SECONDS, loud=True)).decode()
    content = [{"type": "input_audio", "audio": sound}]
    item = {"id": "mine", "type": "message", "role": "user", "content": content}
    ask = json.dumps({"type": "conversation.item.retrieve", "item_id": "mine"})
    async with watched_server() as server, connect(server.ws, max_size=MOST_BYTES) as client:
        await client.send(json.dumps({"type": "conversation.item.create", "item": item}))
        await client.send(json.dumps({"type": "response.create"}))
        await until(client, "response.done")
        await server.health()
        for _ in range(20):
            await client.send(ask)
        await asyncio.sleep(1.0)
        parts = []
        for _ in range(20):
            parts.append((await until(client, "conversation.item.retrieved"))["item"]["content"][0])
        await client.send(ask)
        parts.append((await until(client, "conversation.item.retrieved"))["item"]["content"][0])
        health = await server.health()
    whole = [part for part in parts if "audio" in part]
    assert parts[0] in whole
    assert parts[-1] in whole, "what was read makes room"
    assert all(len(base64.b64decode(part["audio"])) == SECONDS * 48_000 for part in whole)
    assert health.faults == []
    assert health.held[health.forgiven][0] < HELD_MS, health.held
