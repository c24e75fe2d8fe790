"""What clients may do to a server, each kind without end, from a process of its own.

What is large is made once: it is the server that is to be kept busy, and not the cores that it has.

Run as `abuse.py URL KIND` it prints a line when the abuse is under way. At the end of its input it
stops and prints, as JSON, how often it did what (`Done`).
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import soundfile
from bulk_work import Done, working
from fuzzing import EVENTS_A_SESSION, Fuzzed, Fuzzer
from scripted import pcm
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

PATIENCE = 60.0  # seconds for one reply
OPEN = 60  # connections that stay and say nothing
USER = {"type": "message", "role": "user"}
HELLO = {**USER, "content": [{"type": "input_text", "text": "hi"}]}
_seeds = itertools.count(1)  # of the fuzz: each run sends the same
HALF = b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
SLOW = b"POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\nRIFF"


class Abuser:
    """One kind's client: where the server is, what it serves, and what was done to it."""

    def __init__(self, url: str, model: str, done: Done) -> None:
        parts = urlsplit(url)
        self.http = url
        self.ws = f"ws://{parts.netloc}/v1/realtime"
        self.address = (parts.hostname or "", parts.port or 0)
        self.model = model
        self.done = done

    async def post(self, path: str, **body: Any) -> None:
        """Post it, whatever comes of it."""
        async with httpx.AsyncClient(base_url=self.http, timeout=PATIENCE) as client:
            reply = await client.post(path, **body)
        self.done[f"{path}: {reply.status_code}"] += 1

    @asynccontextmanager
    async def session(self, **options: Any) -> AsyncIterator[ClientConnection]:
        """A session whose events nobody looks at."""
        options = {"max_size": None, "compression": None, "max_queue": None, **options}
        async with connect(self.ws, proxy=None, **options) as client:
            yield client

    async def send(self, client: ClientConnection, kind: str, **fields: object) -> None:
        await self.send_made(client, kind, event(kind, **fields))

    async def send_made(self, client: ClientConnection, kind: str, message: str) -> None:
        await client.send(message)
        self.done[kind] += 1


def event(kind: str, **fields: object) -> str:
    """A client's event as it is sent."""
    return json.dumps({"type": kind, **fields})


@cache
def bomb() -> bytes:
    """A minute of silence in eight channels at 48 kHz: 90 MB once decoded, as much as is taken."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 48_000, 8, "PCM_16", format="FLAC") as out:
        for _ in range(60):
            out.write(np.zeros((48_000, 8), np.int16))
    data = bytearray(file.getvalue())
    data[21] &= 0xF0  # it does not state its length, as from a pipe
    data[22:26] = bytes(4)
    return bytes(data)


@cache
def speech(seconds: float) -> bytes:
    """A wav of loud sound."""
    file = io.BytesIO()
    samples = np.frombuffer(pcm(seconds, loud=True), "<i2")
    soundfile.write(file, samples, 24_000, format="WAV")
    return file.getvalue()


@cache
def long_instructions() -> str:
    """A session's update with 8 MB of them."""
    session = {"type": "realtime", "instructions": "word " * 1_600_000}
    return event("session.update", session=session)


@cache
def long_item() -> str:
    """An item with 30 kB of text."""
    content = [{"type": "input_text", "text": "word " * 6000}]
    return event("conversation.item.create", item={**USER, "content": content})


@cache
def spoken_item() -> str:
    """An item with 55 s of sound."""
    sound = base64.b64encode(pcm(55, loud=True)).decode()
    content = [{"type": "input_audio", "audio": sound}]
    return event("conversation.item.create", item={**USER, "content": content})


@cache
def long_chat(model: str) -> bytes:
    """500 messages of 30 kB."""
    chat = [{"role": "user", "content": "word " * 6000}] * 500
    return json.dumps({"model": model, "messages": chat}).encode()


@cache
def spoken_chat(model: str) -> bytes:
    """A message with 24 MB of base64."""
    data = base64.b64encode(bytes(18_000_000)).decode()
    part = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    return json.dumps({"model": model, "messages": [{"role": "user", "content": [part]}]}).encode()


async def memory(abuser: Abuser) -> None:
    """Small files of gigabytes, secrets of megabytes, requests whose replies nobody reads."""
    await abuser.post("/v1/answer", content=bomb())
    large = {"session": {"type": "realtime", "instructions": "x" * 4_000_000}}
    await abuser.post("/v1/realtime/client_secrets", json=large)
    _, writer = await asyncio.open_connection(*abuser.address)
    with suppress(ConnectionError):
        for _ in range(2000):
            writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.5)
    writer.close()
    abuser.done["pipelines"] += 1


async def loop(abuser: Abuser) -> None:
    """Megabytes of instructions, of items, of chat and of base64."""
    async with abuser.session() as client:
        await abuser.send_made(client, "session.update", long_instructions())
        for _ in range(50):
            await abuser.send_made(client, "conversation.item.create", long_item())
            await abuser.send(client, "response.create")
    await abuser.post("/v1/chat/completions", content=long_chat(abuser.model))
    await abuser.post("/v1/chat/completions", content=spoken_chat(abuser.model))


async def queue(abuser: Abuser) -> None:
    """Long recordings, by REST and inside items of clients that leave at once."""
    async with abuser.session() as client:
        await abuser.send_made(client, "conversation.item.create", spoken_item())
        await abuser.send(client, "response.create")
        client.transport.abort()
    await asyncio.gather(*(abuser.post("/v1/answer", content=speech(18.0)) for _ in range(3)))


async def places(abuser: Abuser) -> None:
    """Connections that say nothing, half a head or half a handshake, and uploads without end."""
    beginnings = [b"", b"GET / HT", HALF, SLOW]
    streams = [await asyncio.open_connection(*abuser.address) for _ in range(OPEN)]
    for number, (_, writer) in enumerate(streams):
        with suppress(ConnectionError):
            writer.write(beginnings[number % len(beginnings)])
            abuser.done["connections"] += 1
    await asyncio.sleep(2.0)
    for _, writer in streams:
        writer.close()


async def slow_link(abuser: Abuser) -> None:
    """Clients that ask for answers and do not read them."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, abuser.address)
    async with abuser.session(sock=raw) as client:
        client.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(20):
            await abuser.send(client, "conversation.item.create", item=HELLO)
            await abuser.send(client, "response.create")
            await asyncio.sleep(0.1)
            await abuser.send(client, "response.cancel")
        client.transport.abort()


async def fuzz(abuser: Abuser) -> None:
    """Events as nobody should send them."""
    found = Fuzzed()
    await Fuzzer(next(_seeds), found).run(abuser.ws, EVENTS_A_SESSION)
    abuser.done["events"] += found.events
    for wrong in found.wrong:
        abuser.done[f"wrong: {wrong}"] += 1


KINDS: dict[str, Callable[[Abuser], Awaitable[None]]] = {
    one.__name__: one for one in (memory, loop, queue, places, slow_link, fuzz)
}
AT_ONCE = 3  # of a kind


async def _without_end(abuser: Abuser, kind: str) -> None:
    while True:
        with suppress(OSError, httpx.HTTPError, WebSocketException, TimeoutError):
            await KINDS[kind](abuser)
            abuser.done["rounds"] += 1
        await asyncio.sleep(0.05)


async def main(url: str, kind: str) -> None:
    """Abuse until the input ends."""
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        models = (await client.get("/v1/models")).json()
    abuser = Abuser(url, models["data"][0]["id"], Done())
    tasks = [asyncio.create_task(_without_end(abuser, kind)) for _ in range(AT_ONCE)]
    while not abuser.done:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    sys.stdout.write("under way\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    sys.stdout.write(json.dumps(abuser.done) + "\n")


def abuse(url: str, kind: str) -> AbstractContextManager[Done]:
    """Such a process beside the block; its counts are in the value once the block has ended."""
    return working(Path(__file__), url, kind)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
