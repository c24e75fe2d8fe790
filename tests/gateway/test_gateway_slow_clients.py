"""Clients behind a slow link, or none at all: what they are told first, and what they may keep."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from recordings import CHAT
from scripted import ScriptedEngine, pcm, woven
from scripted_server import Served, serving
from websockets.asyncio.client import ClientConnection, connect

SOON = 20.0
SOUND = 150  # groups, 18 s: 1.1 MB of messages
ON_THE_WAY = 200_000  # bytes of them that may be in the buffers of both ends


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def small_window(served: Served) -> socket.socket:
    """A connection that takes little before it is read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", served.port))
    return raw


@asynccontextmanager
async def unread(served: Served) -> AsyncIterator[ClientConnection]:
    """A session whose client reads nothing for now."""
    async with connect(
        served.ws, sock=await small_window(served), compression=None, max_queue=None
    ) as client:
        await client.recv()
        client.transport.pause_reading()  # type: ignore[attr-defined]
        yield client


async def send(client: ClientConnection, kind: str, **fields: object) -> None:
    await client.send(json.dumps({"type": kind, **fields}))


async def test_behind_a_slow_link_speech_is_told_before_the_sound_that_waits(
    engine: ScriptedEngine,
) -> None:
    """What lay in the socket's buffers, seconds of a dead answer, came first."""
    engine.answer = lambda prompt: woven("x", SOUND)
    text = {"type": "input_text", "text": "hi"}
    async with serving(engine) as served, unread(served) as client:
        metrics = served.state.parts.services.metrics
        item = {"type": "message", "role": "user", "content": [text]}
        await send(client, "conversation.item.create", item=item)
        await send(client, "response.create")
        await until(lambda: len(engine.prompts) == 1 and not engine.running)
        speech = base64.b64encode(pcm(1.0, loud=True)).decode()
        await send(client, "input_audio_buffer.append", audio=speech)
        await until(lambda: metrics.registry.get_sample_value("aqaa_interruptions_total") == 1.0)
        client.transport.resume_reading()  # type: ignore[attr-defined]
        before = 0
        async with asyncio.timeout(SOON):
            while "input_audio_buffer.speech_started" not in (message := str(await client.recv())):
                before += len(message)
    assert before < ON_THE_WAY


async def test_a_rest_client_that_reads_nothing_gives_its_place_back(
    engine: ScriptedEngine,
) -> None:
    engine.answer = lambda prompt: woven("x", SOUND)
    spoken = {"modalities": ["text", "audio"], "audio": {"voice": "joe", "format": "pcm16"}}
    body = json.dumps({**CHAT, **spoken}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(engine, send_stall_seconds=0.3) as served:
        raw = await small_window(served)
        await asyncio.get_running_loop().sock_sendall(raw, head.encode() + body)
        await until(lambda: served.state.requests.inside() == 1)
        await until(lambda: served.state.requests.inside() == 0)
        raw.close()
