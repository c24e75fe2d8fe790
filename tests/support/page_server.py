"""A server with scripted models in a process of its own: a browser's test must not share a loop."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

from mutated_calls import LEGAL
from scripted import AUDIO, END, EOT, ScriptedEngine, call, woven
from scripted_server import serving
from switched import Switch


def _serve(pipe: Connection, kind: str) -> None:
    async def until_told() -> None:
        async with serving(ENGINES[kind](), max_sessions=2) as served:
            pipe.send(served.http)
            while (message := await asyncio.to_thread(pipe.recv)) != "stop":
                if message == "sessions":
                    pipe.send(served.state.sessions.inside())

    asyncio.run(until_told())


def _serve_two(pipe: Connection, kind: str) -> None:
    """Two servers behind one address, which points at the first until that is lost."""

    async def until_told() -> None:
        async with (
            serving(ENGINES[kind]()) as first,
            serving(ENGINES[kind](), max_sessions=1) as second,
            Switch(first.port) as switch,
        ):
            pipe.send(switch.url)
            while (message := await asyncio.to_thread(pipe.recv)) != "stop":
                if message == "freeze":
                    switch.freeze()
                    continue
                switch.replace(second.port)
                if message == "drain":
                    first.state.drain()
                elif message == "kill":
                    switch.cut()
                elif message == "prompt":
                    pipe.send(second.engine.prompts[-1])

    asyncio.run(until_told())


def _broken() -> ScriptedEngine:
    return ScriptedEngine(alive=False)


def _soundless() -> ScriptedEngine:
    return ScriptedEngine(answer=lambda prompt: [*woven("hello there", 0)])


def _slow() -> ScriptedEngine:
    return ScriptedEngine(seconds=0.05)


def _waiting() -> ScriptedEngine:
    """Its answers do not go on before it is asked a question with "second" in it."""
    gate = asyncio.Event()

    def answer(prompt: Sequence[int]) -> list[int]:
        if "second" in "".join(chr(token) for token in prompt if token < AUDIO):
            gate.set()
        return woven("hello there", 6)

    return ScriptedEngine(answer=answer, gate=gate)


def _long() -> ScriptedEngine:
    return ScriptedEngine(answer=lambda prompt: woven("hello there", 25))


def _calling() -> ScriptedEngine:
    def answer(prompt: Sequence[int]) -> list[int]:
        said = "".join(chr(token) for token in prompt if token < AUDIO)
        return woven("Your timer runs.", 6) if "tool\n" in said else [*call(LEGAL[0]), EOT]

    return ScriptedEngine(answer=answer)


def _announcing() -> ScriptedEngine:
    calling = _calling().answer

    def answer(prompt: Sequence[int]) -> list[int]:
        answered = calling(prompt)
        said = woven("One moment, please, I will do that.", 18)[:-1]
        return answered if answered[-2] == END else [*said, *answered]

    return ScriptedEngine(answer=answer)


ENGINES: dict[str, Callable[[], ScriptedEngine]] = {
    "well": ScriptedEngine,
    "broken": _broken,
    "soundless": _soundless,
    "slow": _slow,
    "waiting": _waiting,
    "long": _long,
    "calling": _calling,
    "announcing": _announcing,
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


class TwoServers(PageServer):
    """Two servers behind one address."""

    def drain_first(self) -> None:
        """The first ends what it is doing and closes; callers come to the second."""
        self._pipe.send("drain")

    def kill_first(self) -> None:
        """All connections to the first break; callers come to the second."""
        self._pipe.send("kill")

    def freeze_first(self) -> None:
        """Its connections stay open, new ones come to it, and it says nothing."""
        self._pipe.send("freeze")

    def replace_first(self) -> None:
        """Callers come to the second; the first stays frozen."""
        self._pipe.send("replace")

    def prompt_of_second(self) -> tuple[int, ...]:
        """What the second server's model was asked last."""
        self._pipe.send("prompt")
        prompt: tuple[int, ...] = self._pipe.recv()
        return prompt


@contextmanager
def page_server(kind: str) -> Iterator[PageServer]:
    """A server whose engine is of this kind."""
    with _process(_serve, kind) as pipe:
        yield PageServer(pipe)


@contextmanager
def two_page_servers(kind: str) -> Iterator[TwoServers]:
    """Two of them behind one address."""
    with _process(_serve_two, kind) as pipe:
        yield TwoServers(pipe)


@contextmanager
def _process(serve: Callable[[Connection, str], None], kind: str) -> Iterator[Connection]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, kind))
    process.start()
    try:
        yield ours
        ours.send("stop")
        process.join(30)
    finally:
        process.kill()
