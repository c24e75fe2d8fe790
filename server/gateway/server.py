"""uvicorn with our application, from loaded parts to an orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

import uvicorn

from aqaa.models.errors import ConfigError
from aqaa.server.config import Settings
from aqaa.server.gateway.app import create_app
from aqaa.server.gateway.entrance import Entrance
from aqaa.server.gateway.state import ServerState
from aqaa.server.gateway.wire import ConnectionConfig, HttpProtocol, RealtimeProtocol

log = logging.getLogger(__name__)

OLD_COLLECTIONS = 2  # of the middle generation, after which all is collected; Python's own is 10

OTHER_FILES = 100  # open beside connections: models, pipes of engines, logs
GRACE_SECONDS = 5  # uvicorn's own, after the drain, for whatever is left
SIGNALS = (signal.SIGTERM, signal.SIGINT)
EVERYWHERE = ("127.0.0.1", "0.0.0.0", "::", "::1")


async def run(settings: Settings, announce: Callable[[str], None]) -> None:
    """Listen, load, serve until a signal; `announce` is told where the page is once all is ready.

    Raises:
        AqaaError: the bundle cannot be used, or the address cannot be listened on.
    """
    with listen(settings.host, settings.port) as listener:
        server = DrainingServer(settings)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            await server.listening.wait()
            # In a thread: torch takes seconds to import, and the entrance answers meanwhile.
            await asyncio.to_thread(import_module, "aqaa.server.runtime")
            from aqaa.server.runtime import Runtime

            runtime = await Runtime.load(settings, server.entrance.loaded)
            try:
                keep_for_good()
                state = ServerState.of(settings, runtime.parts)
                server.open(state)
                host = "localhost" if settings.host in EVERYWHERE else settings.host
                port = listener.getsockname()[1]
                name = runtime.parts.bundle.name
                announce(f"aqaa serves {name}: talk to it at http://{host}:{port}")
                try:
                    await serving
                finally:
                    await state.store.close()
            finally:
                await runtime.close()
        finally:
            server.should_exit = True
            await serving


def keep_for_good() -> None:
    """What is loaded by now stays: no later collection of garbage walks through it.

    Modules and models are a million objects: each full collection stopped all sessions for 0.15 s.
    What conversations leave behind is collected early and in small portions: by default it came to
    50,000 objects, for which all sessions stood still for 60 ms.
    """
    gc.collect()
    gc.freeze()
    # A full collection also waits until there is a quarter more than the last one left, which is
    # little after this one, and keeps the walks rare where many conversations are open.
    gc.collect()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, OLD_COLLECTIONS)


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
            listener.listen()
        except (OSError, UnicodeError) as error:  # a name that is none
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(
                f"cannot listen on {host}:{port} ({reason}): choose another --host or --port"
            ) from error
        yield listener


def _open_files(wanted: int) -> int:
    """How many connections the system lets this process hold; tells if that is fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if soft < needed:
            log.warning(
                "the system allows %d open files (ulimit -n): at most %d connections are taken",
                soft,
                most := max(1, soft - OTHER_FILES),
            )
            return most
    return wanted


class DrainingServer(uvicorn.Server):
    """uvicorn, but the first signal lets running answers end; a second one does not.

    Until it is opened it tells what is still loading, and a signal ends the process at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.entrance = Entrance()
        self.listening = asyncio.Event()
        super().__init__(
            ConnectionConfig(
                self.entrance,
                max_connections=_open_files(settings.max_connections),
                handshake_seconds=settings.handshake_seconds,
                lifespan="off",
                http=HttpProtocol,  # h11: one request of a connection at a time is in memory
                ws=RealtimeProtocol,
                proxy_headers=False,  # `origins.ForwardedHeaders` believes whom it should
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
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
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, and say so."""
        await super().startup(sockets)
        self.listening.set()

    def open(self, state: ServerState) -> None:
        """All parts are there: let callers in. From now on SIGTERM and SIGINT `stop` the server."""
        self.entrance.open(create_app(state))
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.stop, state)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Not uvicorn's handlers, but those of `open`."""
        try:
            yield
        finally:
            loop = asyncio.get_running_loop()
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def stop(self, state: ServerState) -> None:
        """Take nobody in, let running answers end, then stop; called again, stop now."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._drained(state))
        else:
            self.should_exit = self.force_exit = True

    async def _drained(self, state: ServerState) -> None:
        await state.drained()
        self.should_exit = True
