"""A server with scripted models in a process of its own: a browser's test must not share a loop."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from scripted import ScriptedEngine, woven
from scripted_server import serving


def _serve(pipe: Connection, kind: str) -> None:
    async def until_told() -> None:
        async with serving(ENGINES[kind](), max_sessions=2) as served:
            pipe.send(served.http)
            while (message := await asyncio.to_thread(pipe.recv)) != "stop":
                if message == "sessions":
                    pipe.send(served.state.sessions.inside())

    asyncio.run(until_told())


def _broken() -> ScriptedEngine:
    return ScriptedEngine(alive=False)


def _soundless() -> ScriptedEngine:
    return ScriptedEngine(answer=lambda prompt: [*woven("hello there", 0)])


def _slow() -> ScriptedEngine:
    return ScriptedEngine(seconds=0.05)


ENGINES: dict[str, Callable[[], ScriptedEngine]] = {
    "well": ScriptedEngine,
    "broken": _broken,
    "soundless": _soundless,
    "slow": _slow,
}


class PageServer:
    """The running server."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        assert pipe.poll(60), "the server did not come up"
        self.url: str = pipe.recv()

    def sessions(self) -> int:
        """How many conversations are open."""
        self._pipe.send("sessions")
        count: int = self._pipe.recv()
        return count


@contextmanager
def page_server(kind: str) -> Iterator[PageServer]:
    """A server whose engine is of this kind."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, kind))
    process.start()
    try:
        yield PageServer(ours)
        ours.send("stop")
        process.join(30)
    finally:
        process.kill()
