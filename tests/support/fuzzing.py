"""Client events as nobody should send them, and sessions that send them to a server."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from scripted import pcm
from watched_server import WatchedServer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Json = dict[str, Any]

IN_FLIGHT = 16  # sessions at once
EVENTS_A_SESSION = 250
VANISH = 0.1  # the share of sessions that end without a goodbye
BETA = 0.2  # the share of sessions that speak the beta
DONE_WITHIN = 60.0  # seconds for the last answers of a session
LAST = "the_end"  # the type and the id of each session's last event, which means nothing
PACE = 16  # events between two looks at what the server says

LOUD = base64.b64encode(pcm(0.3, loud=True)).decode()
QUIET = base64.b64encode(pcm(0.4, loud=False)).decode()
HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
SPOKEN = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": LOUD}]}
CALL = {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c", "output": "4"}

SEEDS: list[Json] = [
    {"type": "input_audio_buffer.append", "audio": LOUD},
    {"type": "input_audio_buffer.append", "audio": QUIET},
    {"type": "input_audio_buffer.append", "audio": LOUD[:8]},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {"type": "output_audio_buffer.clear"},
    {"type": "conversation.item.create", "item": HELLO},
    {"type": "conversation.item.create", "item": SPOKEN, "previous_item_id": "root"},
    {"type": "conversation.item.create", "item": {**HELLO, "id": "mine"}},
    {"type": "conversation.item.create", "item": CALL},
    {"type": "conversation.item.create", "item": RESULT},
    {"type": "conversation.item.retrieve", "item_id": "ITEM"},
    {"type": "conversation.item.delete", "item_id": "ITEM"},
    {
        "type": "conversation.item.truncate",
        "item_id": "ITEM",
        "content_index": 0,
        "audio_end_ms": 100,
    },
    {"type": "response.create"},
    {
        "type": "response.create",
        "response": {"output_modalities": ["text"], "metadata": {"a": "b"}},
    },
    {
        "type": "response.create",
        "response": {"conversation": "none", "input": [HELLO, SPOKEN], "instructions": "Be brief."},
    },
    {"type": "response.cancel"},
    {"type": "response.cancel", "response_id": "RESPONSE"},
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "instructions": "Be brief.",
            "output_modalities": ["audio"],
            "max_output_tokens": "inf",
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.5,
                        "prefix_padding_ms": 300,
                        "silence_duration_ms": 300,
                        "idle_timeout_ms": 5000,
                        "create_response": True,
                        "interrupt_response": True,
                    },
                    "noise_reduction": None,
                    "transcription": None,
                },
                "output": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "voice": "joe",
                    "speed": 1.0,
                },
            },
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
            "tool_choice": "auto",
        },
    },
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {}}}},
    {
        "type": "session.update",
        "session": {
            "modalities": ["text", "audio"],
            "voice": "joe",
            "input_audio_format": "pcm16",
            "output_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 300},
            "max_response_output_tokens": "inf",
        },
    },
    {
        "type": "response.create",
        "response": {"modalities": ["text"], "output_audio_format": "pcm16", "input": [HELLO]},
    },
]
STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**80), 0.5, -0.0, 1e308, 1e-320, "", " ", "\0",
    "a" * 300, "é" * 40, "\U0001f600", "null", "none", "root", "auto", "text", "audio", "ITEM",
    "RESPONSE", [], [[]], [None], {}, {"type": None}, {"type": "message"}, {"a": {"a": {"a": {}}}},
    "AAAA", "AAA=", "A", "====", "data:audio/wav;base64,AAAA", [1] * 50, "semantic_vad",
    "server_vad", "audio/pcmu", "audio/pcm", "inf", 8000, 44100, ["text", "audio"], ["image"],
]  # fmt: skip
RAW = [
    "", "{", "[]", "null", "0", '"a"', "[" * 2000, '{"type":' * 300, "{}{}", "\ufeff{}",
    '{"type":"response.create","type":"response.cancel"}',
    '{"type":"session.update","session":NaN}',
    '{"type":"response.create","response":{"max_output_tokens":1e999}}', '{"type":"\\ud800"}',
    '{"type":"input_audio_buffer.append","audio":"\\u0000"}',
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to every value within."""
    inside: list[tuple[Any, ...]] = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            inside += places(value[key], (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            inside += places(one, (*path, index))
    return inside


class Mutator:
    """Makes messages from the seeds; `items` and `responses` are ids that the server has named."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.items = ["item_unknown"]
        self.responses = ["resp_unknown"]

    def message(self) -> str:
        """The next message: as it should be, changed in some places, or no JSON at all."""
        draw = self._draw
        if draw.random() < 0.02:
            return draw.choice(RAW)
        event = json.loads(json.dumps(draw.choice(SEEDS)))
        for _ in range(draw.choice((0, 0, 0, 1, 1, 1, 2, 3))):
            self._change(event)
        text = json.dumps(event)
        text = text.replace('"ITEM"', json.dumps(draw.choice(self.items[-8:])))
        text = text.replace('"RESPONSE"', json.dumps(draw.choice(self.responses[-4:])))
        if draw.random() < 0.02:
            cut = draw.randrange(len(text))
            inserted = draw.choice(("", "\\ud800", "1e999", "NaN", "}"))
            return text[:cut] + inserted + text[cut + draw.choice((1, 1, len(text))) :]
        return text

    def _change(self, event: Json) -> None:
        draw = self._draw
        if not event:
            return
        *way, last = draw.choice(places(event))
        parent: Any = event
        for step in way:
            parent = parent[step]
        match draw.randrange(5):
            case 0 if isinstance(parent, dict):
                parent.pop(last, None)
            case 1 if isinstance(parent, dict):
                parent[draw.choice(["", "type", "id", "item_id", "x" * 200])] = self._strange()
            case 2:
                parent[last] = [json.loads(json.dumps(parent[last])) for _ in range(3)]
            case _:
                parent[last] = self._strange()

    def _strange(self) -> Any:
        return json.loads(json.dumps(self._draw.choice(STRANGE)))


@dataclass
class Fuzzed:
    """What came of it.

    Attributes:
        events: messages that were sent.
        answers: responses that were created.
        sessions: sessions that were opened.
        said: how often each type of server event was read.
        wrong: what may not happen, in words, with the seed of the session.
    """

    events: int = 0
    answers: int = 0
    sessions: int = 0
    said: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Fuzzer:
    """One session that sends what it should not, and reads strictly."""

    def __init__(self, seed: int, found: Fuzzed) -> None:
        self._mutator = Mutator(seed)
        self._draw = random.Random(-seed)
        self._seed = seed
        self._found = found
        self._open: set[str] = set()
        self._done: set[str] = set()
        self._answered = False  # the last event
        self._news = asyncio.Event()

    async def run(self, url: str, events: int) -> None:
        """Send so many events, wait for the last answers, leave."""
        self._found.sessions += 1
        headers = {"OpenAI-Beta": "realtime=v1"} if self._draw.random() < BETA else {}
        async with connect(
            url, compression=None, max_queue=None, open_timeout=60, additional_headers=headers
        ) as client:
            reader = asyncio.create_task(self._read(client))
            with suppress(ConnectionClosed):
                for count in range(events):
                    await client.send(self._mutator.message())
                    self._found.events += 1
                    if count % PACE == 0:
                        await asyncio.sleep(self._draw.choice((0, 0, 0.005, 0.02)))
                if self._draw.random() < VANISH:
                    client.transport.abort()
                else:
                    await self._finish(client)
            closed = client.close_code
            await client.close()
            with suppress(ConnectionClosed):
                await reader
            if closed is not None and closed != 1006:
                self._complain(f"the server closed with {closed}: {client.close_reason}")

    async def _finish(self, client: ClientConnection) -> None:
        """Leave when all that was sent has been answered: the last event by an error that names
        it."""
        await client.send(json.dumps({"type": LAST, "event_id": LAST}))
        try:
            async with asyncio.timeout(DONE_WITHIN):
                while self._open or not self._answered:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self._complain(f"no response.done for {sorted(self._open)}")

    async def _read(self, client: ClientConnection) -> None:
        try:
            async for message in client:
                self._take(json.loads(message, parse_constant=self._no_number))
        finally:
            self._open.clear()
            self._answered = True
            self._news.set()

    def _no_number(self, name: str) -> None:
        self._complain(f"{name} is no JSON")

    def _take(self, event: Json) -> None:
        self._found.said[event["type"]] += 1
        match event["type"]:
            case "response.created":
                self._found.answers += 1
                self._open.add(event["response"]["id"])
                self._mutator.responses.append(event["response"]["id"])
            case "response.done":
                name = event["response"]["id"]
                if name not in self._open or name in self._done:
                    self._complain(f"{name} was done twice, or was never begun")
                self._open.discard(name)
                self._done.add(name)
                self._news.set()
            case "error" if event["error"].get("event_id") == LAST:
                self._answered = True
                self._news.set()
            case "conversation.item.added" | "conversation.item.created":
                self._mutator.items.append(event["item"]["id"])

    def _complain(self, what: str) -> None:
        self._found.wrong.append(f"session {self._seed}: {what}")


async def fuzz(server: WatchedServer, events: int, seed: int = 0) -> Fuzzed:
    """Send so many events in many sessions, some at a time."""
    found = Fuzzed()
    seeds = iter(range(seed + 1, seed + 1 + -(-events // EVENTS_A_SESSION)))

    async def sessions() -> None:
        for each in seeds:
            try:
                await Fuzzer(each, found).run(server.ws, EVENTS_A_SESSION)
            except Exception as error:
                found.wrong.append(f"session {each}: {error!r}")

    await asyncio.gather(*(sessions() for _ in range(IN_FLIGHT)))
    return found
