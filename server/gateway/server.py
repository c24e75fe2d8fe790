"""uvicorn with our application, from loaded parts to an orderly end."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import uvicorn

from aqaa.models.errors import ConfigError
from aqaa.server.config import Settings
from aqaa.server.gateway.app import create_app
from aqaa.server.gateway.state import ServerState
from aqaa.server.gateway.wire import RealtimeProtocol
from aqaa.server.runtime import Runtime

GRACE_SECONDS = 5  # uvicorn's own, after the drain, for whatever is left
EVERYWHERE = ("127.0.0.1", "0.0.0.0", "::", "::1")


async def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serve until a signal; `announce` is told where the page is once all is ready.

    Raises:
        AqaaError: the bundle cannot be used, or the address cannot be listened on.
    """
    runtime = await Runtime.load(settings)
    try:
        with listen(settings.host, settings.port) as listener:
            state = ServerState.of(settings, runtime.house)
            host = "localhost" if settings.host in EVERYWHERE else settings.host
            port = listener.getsockname()[1]
            name = runtime.house.bundle.name
            message = f"aqaa serves {name}: talk to it at http://{host}:{port}"
            await DrainingServer(state, lambda: announce(message)).serve([listener])
    finally:
        await runtime.close()


@contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket.

    Raises:
        ConfigError: the address is taken or not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}): choose another --port"
            ) from error
        yield listener


class DrainingServer(uvicorn.Server):
    """uvicorn, but the first signal lets running answers end; a second one does not."""

    def __init__(self, state: ServerState, ready: Callable[[], None]) -> None:
        settings = state.settings
        super().__init__(
            uvicorn.Config(
                create_app(state),
                ws=RealtimeProtocol,
                ws_max_size=settings.max_message_bytes,
                ws_ping_interval=settings.ping_seconds,
                ws_ping_timeout=settings.ping_seconds,
                ws_per_message_deflate=False,  # base64 sound hardly shrinks, and it costs a core
                log_config=None,
                log_level=settings.log_level,
                access_log=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._state = state
        self._ready = ready
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT call `stop`."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Take nobody in, let running answers end, then stop; called again, stop now."""
        if self._drain is None:
            self._state.drain()
            self._drain = asyncio.create_task(self._drained())
        else:
            self.should_exit = self.force_exit = True

    async def _drained(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._state.settings.drain_seconds):
                await self._state.empty()
        self.should_exit = True
