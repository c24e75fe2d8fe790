"""Mutated client events against a running server, and what it must never do about them.

python tests/support/fuzz.py EVENTS SEED        against scripted models, in this process
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import logging
import math
import random
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from scripted import ScriptedEngine, pcm, woven
from scripted_server import Served, serving
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

EVENTS_A_SESSION = 250
SOON = 30.0  # seconds for a session to answer what was asked, on a busy machine
SPEECH = base64.b64encode(pcm(0.4, loud=True)).decode()
SILENCE = base64.b64encode(pcm(0.8, loud=False)).decode()
TEXT = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
SOUND = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": SPEECH}]}
SEEDS: list[dict[str, Any]] = [
    {"type": "input_audio_buffer.append", "audio": SPEECH},
    {"type": "input_audio_buffer.append", "audio": SILENCE},
    {"type": "input_audio_buffer.append", "audio": "AQ=="},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": TEXT},
    {"type": "conversation.item.create", "item": {**TEXT, "id": "mine"}},
    {"type": "conversation.item.create", "item": SOUND, "previous_item_id": "root"},
    {"type": "conversation.item.delete", "item_id": "mine"},
    {"type": "conversation.item.retrieve", "item_id": "mine"},
    {"type": "conversation.item.truncate", "item_id": "mine", "audio_end_ms": 100},
    {"type": "response.create"},
    {"type": "response.create", "response": {"output_modalities": ["text"]}},
    {"type": "response.create", "response": {"metadata": {"a": "b"}}},
    {"type": "response.create", "response": {"conversation": "none", "input": [TEXT, SOUND]}},
    {"type": "response.cancel"},
    {
        "type": "session.update",
        "session": {
            "instructions": "be brief",
            "audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}},
        },
    },
    {
        "type": "session.update",
        "session": {
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000},
                },
                "output": {"voice": "amy", "speed": 1.5},
            },
            "tools": [{"type": "function", "name": "lamp"}],
        },
    },
]
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 2**70, "", "\x00", "\u2028", "x" * 700, "AQ==", [], {}, [[]],
    [None] * 70, {"type": "text"}, "audio/pcm", "root", "none", 10**6,
]  # fmt: skip


def mutated(choice: random.Random, event: dict[str, Any]) -> str:
    """The event, or something near it, as text; now and then no JSON at all."""
    value: Any = json.loads(json.dumps(event))
    for _ in range(choice.choice((0, 1, 1, 2, 3))):
        where = value
        while isinstance(where, dict) and where and choice.random() < 0.7:
            key = choice.choice(list(where))
            if not isinstance(where[key], dict):
                break
            where = where[key]
        if isinstance(where, dict):
            keys = [*where, "id", "item_id", "audio", "type", "response_id", "x"]
            key = choice.choice(keys)
            if choice.random() < 0.2:
                where.pop(key, None)
            else:
                where[key] = copy.deepcopy(choice.choice(ODD))
    text = json.dumps(value)
    if choice.random() < 0.02:
        cut = choice.randrange(len(text))
        text = text[:cut] + choice.choice(("", "\\ud800", "1e999", "NaN", "}")) + text[cut + 1 :]
    return text


@dataclass
class Found:
    """What came of it."""

    events: int = 0
    sessions: int = 0
    responses: int = 0
    worst_stall: float = 0.0  # seconds that the event loop stood still
    faults: list[str] = field(default_factory=list)


async def fuzz(served: Served, count: int, seed: int, at_once: int = 4) -> Found:
    """Send `count` events in many sessions, some of them abandoned in the middle."""
    found = Found()
    watching = asyncio.create_task(_watch_the_loop(found))
    numbers = iter(range(math.ceil(count / EVENTS_A_SESSION)))

    async def one_after_the_other() -> None:
        for number in numbers:
            await _session(served, random.Random(seed * 1_000_003 + number), found)

    try:
        await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    finally:
        watching.cancel()
    return found


async def _watch_the_loop(found: Found) -> None:
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.01)
        found.worst_stall = max(found.worst_stall, time.monotonic() - before - 0.01)


async def _session(served: Served, choice: random.Random, found: Found) -> None:
    found.sessions += 1
    beta = {"OpenAI-Beta": "realtime=v1"} if choice.random() < 0.2 else {}
    async with connect(served.ws, additional_headers=beta, max_size=None) as client:
        reading = asyncio.create_task(_read(client, found))
        with suppress(ConnectionClosed):
            for _ in range(EVENTS_A_SESSION):
                await client.send(mutated(choice, choice.choice(SEEDS)))
                found.events += 1
                if choice.random() < 0.05:
                    await asyncio.sleep(choice.random() * 0.05)
        if choice.random() < 0.3:
            client.transport.abort()
            with suppress(ConnectionClosed):
                await reading
            return
        await _settled(client, reading, found)


async def _settled(
    client: ClientConnection, reading: asyncio.Task[tuple[set[str], set[str]]], found: Found
) -> None:
    """Let what runs end, close, and see that each answer ended once."""
    manual = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
    with suppress(ConnectionClosed):
        await client.send(json.dumps({"type": "session.update", "session": manual}))
        await client.send(json.dumps({"type": "response.cancel"}))
        await client.send(json.dumps({"type": "conversation.item.retrieve", "item_id": "the end"}))
    try:
        async with asyncio.timeout(SOON):
            opened, done = await reading
    except TimeoutError:
        found.faults.append("a session stopped answering")
        return
    found.responses += len(opened)
    if opened - done:
        found.faults.append(f"responses that never ended: {opened - done}")
    if client.close_code in (1011, 1006):
        found.faults.append(f"closed with {client.close_code} {client.close_reason}")


async def _read(client: ClientConnection, found: Found) -> tuple[set[str], set[str]]:
    """Ids of responses that began, and that ended, until the session has said all."""
    opened: set[str] = set()
    done: set[str] = set()
    ended = False
    with suppress(ConnectionClosed):
        async for message in client:
            event = json.loads(message, parse_constant=lambda name: found.faults.append(name))
            match event["type"]:
                case "response.created":
                    opened.add(event["response"]["id"])
                case "response.done":
                    response = event["response"]["id"]
                    if response in done:
                        found.faults.append("a response ended twice")
                    done.add(response)
                case "error":
                    ended = ended or "the end" in event["error"]["message"]
            if ended and opened == done:
                break
    return opened, done


async def _main(count: int, seed: int) -> Found:
    engine = ScriptedEngine(answer=lambda prompt: woven("hello there", 6))
    async with serving(engine) as served:
        found = await fuzz(served, count, seed)
        async with asyncio.timeout(SOON):
            await served.state.sessions.empty()
        if engine.running:
            found.faults.append(f"{engine.running} answers still run")
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    result = asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
    sys.stdout.write(f"{result}\n")
    sys.exit(bool(result.faults))
