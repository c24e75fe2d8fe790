"""WebSocket frames that are whole and make no message: no client fills the memory with them."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from scripted_server import Served
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from aqaa.server.gateway.wire import RealtimeProtocol

SOON = 60.0
CLEAR = json.dumps({"type": "input_audio_buffer.clear"}).encode()
PINGS = 16 * 2**20  # bytes of them: more than the kernels' buffers take of the pongs
MOST_UNSENT = 2**20


def frame(kind: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """As a client sends it."""
    return Frame(kind, data, fin).serialize(mask=True)


@asynccontextmanager
async def reading_little(served: Served) -> AsyncIterator[ClientConnection]:
    """A client for whom the kernel keeps little."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", served.port))
    async with connect(served.ws, sock=raw, max_queue=None) as client:
        yield client
        client.transport.abort()


def protocol_of(served: Served) -> RealtimeProtocol:
    """The server's side of its only WebSocket."""
    (protocol,) = (
        one for one in served.server.server_state.connections if isinstance(one, RealtimeProtocol)
    )
    return protocol


async def write(client: ClientConnection, data: bytes) -> None:
    """Send bytes; returns when nearly all have left."""
    client.transport.set_write_buffer_limits(0)
    client.transport.write(data)
    async with asyncio.timeout(SOON):
        while client.transport.get_write_buffer_size():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_who_reads_no_pong_is_sent_no_more_of_them(served: Served) -> None:
    async with reading_little(served) as client:
        await client.recv()
        client.transport.pause_reading()  # type: ignore[attr-defined]
        ping = frame(Opcode.PING, b"x" * 125)
        await write(client, ping * (PINGS // len(ping)))
        assert protocol_of(served).transport.get_write_buffer_size() < MOST_UNSENT


async def test_a_ping_is_answered(served: Served) -> None:
    async with connect(served.ws) as client, asyncio.timeout(SOON):
        await (await client.ping())


@pytest.mark.parametrize("data", [b"", b" "], ids=["empty", "of a byte"])
async def test_fragments_that_say_nothing_take_no_more_memory_than_what_is_in_them(
    served: Served, data: bytes
) -> None:
    async with connect(served.ws, max_queue=None) as client:
        await client.recv()
        await write(client, frame(Opcode.TEXT, b"", fin=False))
        await write(client, frame(Opcode.CONT, data, fin=False) * 20_000)
        async with asyncio.timeout(SOON):
            while not protocol_of(served).frames:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(protocol_of(served).frames) == 1
        await write(client, frame(Opcode.CONT, CLEAR))
        async with asyncio.timeout(SOON):
            while json.loads(await client.recv())["type"] != "input_audio_buffer.cleared":
                pass
