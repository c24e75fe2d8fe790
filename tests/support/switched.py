"""One address before several servers, as a load balancer is: new connections go where it points."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Switch:
    """Forwards to port `to` of this machine; None: it hangs up. Listens in its starter's loop."""

    def __init__(self, to: int | None) -> None:
        self.to = to
        self.url = ""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen: list[asyncio.Event] = []
        self._flows = asyncio.Event()
        self._flows.set()

    async def __aenter__(self) -> Switch:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Every connection breaks, as when a process is killed."""
        for writer in self._writers:
            writer.transport.abort()
        for flows in (*self._frozen, self._flows):
            flows.set()

    def freeze(self) -> None:
        """Every connection stays open, new ones are taken, and nothing comes."""
        self._flows.clear()

    def thaw(self) -> None:
        """Everything comes that has waited."""
        self._flows.set()

    def replace(self, to: int) -> None:
        """New connections go to this port; those to what is frozen stay frozen."""
        self.to = to
        self._frozen.append(self._flows)
        self._flows = asyncio.Event()
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with suppress(ConnectionError):
            if self.to is not None:
                upstream, into = await asyncio.open_connection("127.0.0.1", self.to)
                self._writers.add(into)
                flows = self._flows
                await asyncio.gather(_copy(reader, into, flows), _copy(upstream, writer, flows))
                self._writers.discard(into)
        writer.close()
        self._writers.discard(writer)
        self._tasks.discard(task)


async def _copy(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, flows: asyncio.Event
) -> None:
    try:
        while data := await source.read(65536):
            await flows.wait()
            target.write(data)
            await target.drain()
    finally:
        target.close()
