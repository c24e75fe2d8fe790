"""The server as an ASGI application, for a server that somebody else brings:

    uvicorn aqaa.server.gateway.asgi:app

Settings come from the environment alone. The models load when the lifespan begins, so it listens
only once they are there. The first SIGTERM or SIGINT drains: nobody is let in, running answers end,
sockets close with 1012; only then the host's own handler gets the signal. A second signal reaches
it at once. A host that sends none, or runs us in another thread, drains by ending the lifespan.

What `aqaa serve` bounds at the connection (how many, how long a handshake may take, the size of a
message), how it keeps alive and what it logs is here the host's.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from aqaa.server.config import Settings, load_settings
from aqaa.server.gateway.app import create_app
from aqaa.server.gateway.entrance import Entrance
from aqaa.server.gateway.server import SIGNALS, keep_for_good
from aqaa.server.gateway.state import ServerState
from aqaa.server.runtime import Runtime


class Application:
    """One server, from the lifespan's beginning to its end."""

    def __init__(self, load: Callable[[Settings], Awaitable[Runtime]]) -> None:
        """Nothing is loaded yet; `load` does it."""
        self._load = load
        self._entrance = Entrance()
        self._router = Router(lifespan=self._lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan, one request or one connection."""
        part = self._router if scope["type"] == "lifespan" else self._entrance
        await part(scope, receive, send)

    @asynccontextmanager
    async def _lifespan(self, _: object) -> AsyncIterator[None]:
        settings = load_settings()
        runtime = await self._load(settings)
        try:
            keep_for_good()
            state = ServerState.of(settings, runtime.parts)
            self._entrance.open(create_app(state))
            try:
                with _draining_on_signals(state):
                    yield
                await state.drained()
            finally:
                await state.store.close()
        finally:
            await runtime.close()


@contextmanager
def _draining_on_signals(state: ServerState) -> Iterator[None]:
    """Drain before the host's handlers of `SIGNALS` get one."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is given signals
        return
    loop = asyncio.get_running_loop()
    hosts = {number: signal.getsignal(number) for number in SIGNALS}
    drains: set[asyncio.Task[None]] = set()

    def give_back() -> None:
        for number, handler in hosts.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)

    async def drain(number: int) -> None:
        await state.drained()
        give_back()
        signal.raise_signal(number)

    def stop(number: int) -> None:
        if drains:
            give_back()
            signal.raise_signal(number)
        else:
            drains.add(asyncio.create_task(drain(number)))

    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        give_back()
        for task in drains:
            task.cancel()


app = Application(Runtime.load)
