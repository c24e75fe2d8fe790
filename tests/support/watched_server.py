"""The real gateway with scripted models in a process of its own, which tells how it fares.

Run as a program it prints its port, then answers each line on its standard input with a line of
JSON: the fields of `Health`. At the end of its input it stops.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from loop_watch import LoopWatch, watched_loop
from scripted import ScriptedEngine
from scripted_server import Served, serving

from aqaa.server.gateway.server import keep_for_good

STOP_WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Health:
    """What a server says of itself.

    Attributes:
        sessions: conversations that are open.
        answers: answers that the engine is giving.
        busy: milliseconds of processor time that one callback on the event loop took, and the
            callback: the longest since it was asked before, the longest first.
        held: how long one callback held the loop, likewise.
        forgiven: how many of either a test does not judge, for the machine's host took them.
        faults: log records of errors since it was asked before, with their tracebacks.
        rss: bytes of memory that are resident.
        threads: threads of the process.
        files: open file descriptors.
        tasks: asyncio tasks.
    """

    sessions: int
    answers: int
    busy: list[tuple[float, str]]
    held: list[tuple[float, str]]
    forgiven: int
    faults: list[str]
    rss: int
    threads: int
    files: int
    tasks: int


class Faults(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.kept.append(self.format(record))


def health(served: Served, watch: LoopWatch, faults: Faults) -> Health:
    """What the server says of itself now."""
    process = psutil.Process()
    kept, faults.kept = faults.kept, []
    told = Health(
        sessions=served.state.sessions.inside(),
        answers=served.engine.running,
        busy=[(1000 * seconds, what) for seconds, what in watch.busy.told()],
        held=[(1000 * seconds, what) for seconds, what in watch.held.told()],
        forgiven=watch.forgiven,
        faults=kept,
        rss=process.memory_info().rss,
        threads=threading.active_count(),
        files=process.num_fds(),
        tasks=len(asyncio.all_tasks()),
    )
    watch.reset()
    return told


async def serve_watched(
    starting: AbstractAsyncContextManager[Served], watch: LoopWatch | None = None
) -> None:
    """Serve until the input ends."""
    faults = Faults()
    logging.getLogger().addHandler(faults)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with starting as served, watched_loop(watch) as watch:
        keep_for_good()  # as `aqaa serve` does
        sys.stdout.write(f"{served.port}\n")
        sys.stdout.flush()
        while await lines.readline():
            sys.stdout.write(json.dumps(asdict(health(served, watch, faults))) + "\n")
            sys.stdout.flush()


class WatchedServer:
    """Such a process, from outside."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.pid = process.pid
        self.ws = f"ws://127.0.0.1:{port}/v1/realtime"
        self.http = f"http://127.0.0.1:{port}"

    async def health(self) -> Health:
        """What it says of itself now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return Health(**json.loads(await self._process.stdout.readline()))


@asynccontextmanager
async def watched_server(
    program: Path = Path(__file__), *arguments: str
) -> AsyncIterator[WatchedServer]:
    """Start one, or another `program` of its kind; stop it at the end, which must not take long."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield WatchedServer(process, int(await process.stdout.readline()))
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), STOP_WITHIN) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Unkept(list[Any]):
    """What an engine of a long run notes of its calls: nothing, else it would grow with them."""

    def append(self, value: Any) -> None:
        """Forget it."""


def forgetful_engine() -> ScriptedEngine:
    """It keeps nothing of what it was asked."""
    return ScriptedEngine(
        seconds=0.001, warmed=Unkept(), prompts=Unkept(), asked=Unkept(), released=Unkept()
    )


if __name__ == "__main__":
    # Not strict: that costs time which is measured here, and mutated items come back as they came.
    asyncio.run(serve_watched(serving(forgetful_engine(), strict=False, max_sessions=256)))
