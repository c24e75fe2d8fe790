"""A TCP proxy before a real server that does what networks and full servers do to clients.

It forwards bytes both ways. A test may cut connections after so many server-sent events, answer
503 itself, or fall silent while connections stay open.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

FULL = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class FlakyProxy:
    """Listens on a port of its own, in the loop of whoever starts it."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests = 0  # connections that asked for something
        self.refuse = 0  # how many of the next requests for ids get 503
        self.cut_after: list[int] = []  # events after which each of the next connections breaks
        self.speaks = asyncio.Event()  # cleared: connections stay open and nothing comes
        self.speaks.set()
        self.url = ""

    async def __aenter__(self) -> FlakyProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError):
                await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        if not first:
            return
        self.requests += 1
        generates = b"/inference/v1/generate" in first
        if generates and self.refuse > 0:
            self.refuse -= 1
            writer.write(FULL)
            await writer.drain()
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        try:
            await self._carry(first, generates, (reader, writer), (up_reader, up_writer))
        finally:
            up_writer.close()

    async def _carry(
        self,
        first: bytes,
        generates: bool,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        (reader, writer), (up_reader, up_writer) = client, server
        # One request a connection, so that each is seen above.
        up_writer.write(first.replace(b"keep-alive", b"close", 1))
        cut = self.cut_after.pop(0) if generates and self.cut_after else None
        upward = asyncio.create_task(_copy(reader, up_writer))
        try:
            await self._downward(up_reader, writer, cut)
        finally:
            upward.cancel()
            await asyncio.gather(upward, return_exceptions=True)

    async def _downward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: int | None
    ) -> None:
        events = 0
        while data := await reader.read(65536):
            await self.speaks.wait()
            if cut is not None:
                events += data.count(b"data: ")
                if events >= cut:
                    writer.transport.abort()
                    return
            writer.write(data)
            await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
