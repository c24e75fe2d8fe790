"""The messages of a server, as long as there are signs of life.

A process that is frozen and a host that lost its power keep their connections open. While no
message comes, pings tell whether anybody is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedOK

from aqaa.models.errors import ConnectionLostError

LOOK_SECONDS = 0.4  # without a message: then a ping, and a look at what became of it
TELL_SECONDS = 1.1  # without an answer to it, until somebody is told
LEAVE_SECONDS = 3.5  # and until the connection is given up


class Silent(ConnectionLostError):
    """The connection is open, but nobody is there."""


class Signs:
    """What is known of the server's life. Times are those of `time.monotonic`.

    Attributes:
        alive_at: when it last lived; what was sent until then it has read.
    """

    def __init__(self, on_silence: Callable[[str], None]) -> None:
        """`on_silence` is told of a server that answers no ping, within two seconds."""
        self.on_silence = on_silence
        self.alive_at = time.monotonic()
        self._read_at = 0.0

    def sent(self, seconds: float) -> None:
        """It was sent something, which it need not read faster than in so many seconds."""
        self._read_at = max(self._read_at, time.monotonic()) + seconds

    def read_at(self) -> float:
        """When it has read what it was sent; it answers no ping before."""
        return max(self._read_at, time.monotonic())


async def messages(socket: ClientConnection, signs: Signs) -> AsyncIterator[str | bytes]:
    """What comes over an open connection, until a normal end.

    Raises:
        ConnectionClosed: it was closed for another reason.
        Silent: no ping is answered for `LEAVE_SECONDS`.
    """
    pong: asyncio.Future[float] | None = None
    asked = due = 0.0
    told = False
    while True:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                message = await socket.recv()
        except ConnectionClosedOK:
            return
        except TimeoutError:
            if pong is not None and pong.done():
                signs.alive_at = asked
            if pong is None or pong.done():
                asked, due, told = time.monotonic(), signs.read_at(), False
                pong = await _ping(socket)
            elif time.monotonic() - due > LEAVE_SECONDS:
                raise Silent("the server is there no more") from None
            elif time.monotonic() - due > TELL_SECONDS and not told:
                signs.on_silence("the server gives no sign of life")
                told = True
        else:
            pong = None
            signs.alive_at = time.monotonic()
            yield message


async def _ping(socket: ClientConnection) -> asyncio.Future[float]:
    """Ends with its answer; never, where not even the question fits into the connection."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return asyncio.ensure_future(await socket.ping())
    except TimeoutError:
        return asyncio.get_running_loop().create_future()
