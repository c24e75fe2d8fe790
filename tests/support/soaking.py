"""Mixed work for a server, round after round, and whether it keeps anything of it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import statistics
import time
import wave
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from fuzzing import HELLO, SPOKEN
from scripted import pcm
from watched_server import Health, WatchedServer
from websockets.asyncio.client import ClientConnection, connect

AT_ONCE = 12  # jobs of a round at a time
JOBS = 60  # of a round
FEWEST = 20  # rounds, most of a minute: thirds of fewer are too little to compare
SOON = 60.0  # seconds for anything that a client waits for
WARM = 1 / 6  # the share of the rounds in which a server may still grow
MEMORY = 4 * 2**20  # bytes by which the resident memory may differ from then to an hour's end
PIECE = 4800  # bytes: 100 ms of pcm16 at 24 kHz


async def until(client: ClientConnection, *kinds: str) -> dict[str, Any]:
    """The next event of one of these types."""
    async with asyncio.timeout(SOON):
        while True:
            event: dict[str, Any] = json.loads(await client.recv())
            if event["type"] in kinds:
                return event


async def send(client: ClientConnection, kind: str, **fields: object) -> None:
    """A client event."""
    await client.send(json.dumps({"type": kind, **fields}))


async def say(client: ClientConnection, seconds: float, *, loud: bool) -> None:
    """Sound in pieces, faster than it is spoken."""
    data = pcm(seconds, loud=loud)
    for begin in range(0, len(data), PIECE):
        piece = base64.b64encode(data[begin : begin + PIECE]).decode()
        await send(client, "input_audio_buffer.append", audio=piece)
        await asyncio.sleep(0)


async def question(client: ClientConnection) -> None:
    """Speech, and the silence that ends it; returns when the answer begins."""
    await say(client, 0.6, loud=True)
    await say(client, 0.7, loud=False)
    await until(client, "response.created")


async def conversation(server: WatchedServer, draw: random.Random) -> None:
    """Some turns, each heard to its end or spoken into."""
    async with connect(server.ws, max_queue=None) as client:
        for _ in range(draw.randrange(1, 4)):
            await question(client)
            if draw.random() < 0.4:
                await until(client, "response.output_audio.delta", "response.done")
                await say(client, 0.6, loud=True)
                await say(client, 0.7, loud=False)
                await until(client, "response.created")
            await until(client, "response.done")


async def vanishing(server: WatchedServer, draw: random.Random) -> None:
    """A client that is gone in the middle of something."""
    async with connect(server.ws, max_queue=None) as client:
        await until(client, "session.created")
        match draw.randrange(4):
            case 0:
                await say(client, 0.5, loud=True)
            case 1:
                await question(client)
            case 2:
                await send(client, "conversation.item.create", item=SPOKEN)
            case _:
                await send(client, "response.create")
        client.transport.abort()


async def aside(server: WatchedServer, draw: random.Random) -> None:
    """Out-of-band answers beside one of the conversation, some of them cancelled."""
    async with connect(server.ws, max_queue=None) as client:
        await send(client, "conversation.item.create", item=HELLO)
        await send(client, "response.create")
        await send(client, "response.create", response={"conversation": "none", "input": [SPOKEN]})
        await until(client, "response.created")
        if draw.random() < 0.5:
            await send(client, "response.cancel")
        for _ in range(2):
            await until(client, "response.done")


async def upload(server: WatchedServer, draw: random.Random) -> None:
    """A recorded question by REST."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(24_000)
        out.writeframes(pcm(draw.choice((0.5, 1.0, 3.0)), loud=True))
    async with httpx.AsyncClient(base_url=server.http, timeout=SOON) as client:
        reply = await client.post("/v1/answer", content=file.getvalue())
    if reply.status_code not in (200, 429, 503):
        raise AssertionError(f"POST /v1/answer: {reply.status_code} {reply.text[:200]}")


async def chat(server: WatchedServer, draw: random.Random) -> None:
    """A chat completion, whole, streamed, or left in the middle of the stream."""
    body = {
        "model": "scripted",
        "modalities": ["text", "audio"],
        "audio": {"voice": "joe", "format": "pcm16"},
        "messages": [{"role": "user", "content": "hello"}],
        "stream": draw.random() < 0.6,
    }
    async with (
        httpx.AsyncClient(base_url=server.http, timeout=SOON) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as reply,
    ):
        leaves = draw.random() < 0.3
        async for _ in reply.aiter_bytes():
            if leaves:
                break
    if reply.status_code not in (200, 429, 503):
        raise AssertionError(f"POST /v1/chat/completions: {reply.status_code}")


Job = Callable[[WatchedServer, random.Random], Awaitable[None]]
WORK: list[Job] = [conversation, conversation, conversation, vanishing, aside, upload, chat]


@dataclass
class Soaked:
    """What came of it: how much was done, how the server was after each round, what went wrong."""

    done: Counter[str] = field(default_factory=Counter)
    rounds: list[Health] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def kept(self, memory: int = MEMORY, threads: int = 0) -> list[str]:
        """What the server kept of its work, by the rounds after it was warm.

        Args:
            memory: bytes that may be more at the end.
            threads: threads that may be more at the end.
        """
        after = self.rounds[round(len(self.rounds) * WARM) :]
        third = max(1, len(after) // 3)
        first, last = after[:third], after[-third:]
        grown = statistics.median(h.rss for h in last) - statistics.median(h.rss for h in first)
        kept = []
        if grown > memory:
            kept.append(f"{grown / 2**20:.1f} MiB of memory")
        for name in ("threads", "files", "tasks"):
            more = min(getattr(h, name) for h in last) - min(getattr(h, name) for h in first)
            if more > (threads if name == "threads" else 0):
                kept.append(f"{more} {name}")
        return kept


async def soak(
    server: WatchedServer, seconds: float, tell: Callable[[Soaked], None] = lambda _: None
) -> Soaked:
    """Rounds of mixed work for so long, and `FEWEST` at least; `tell` is called after each."""
    soaked = Soaked()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end or number < FEWEST:
        number += 1
        draw = random.Random(number)
        jobs = iter([draw.choice(WORK) for _ in range(JOBS)])
        await asyncio.gather(*(_work(server, jobs, draw, soaked) for _ in range(AT_ONCE)))
        soaked.rounds.append(await _idle(server))
        soaked.wrong += soaked.rounds[-1].faults
        tell(soaked)
    return soaked


async def _work(server: WatchedServer, jobs: Any, draw: random.Random, soaked: Soaked) -> None:
    for job in jobs:
        try:
            await job(server, draw)
            soaked.done[job.__name__] += 1
        except Exception as error:
            soaked.wrong.append(f"{job.__name__}: {error!r}")


async def _idle(server: WatchedServer) -> Health:
    """How the server is when nobody is left."""
    faults: list[str] = []
    async with asyncio.timeout(SOON):
        while True:
            health = await server.health()
            faults += health.faults
            if not health.sessions and not health.answers:
                health.faults[:] = faults
                return health
            await asyncio.sleep(0.1)
