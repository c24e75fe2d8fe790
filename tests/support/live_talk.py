"""A live session with scripted models and its client, on a clock that tests move."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from typing import Literal

from scripted import pcm
from sdk_events import StrictReader

from aqaa.server.parts import ModelParts
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.client_events import parse_client_event
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.live_session import LiveSession

SOON = 5.0  # seconds until a test gives up on something that should happen at once
TAIL = 0.02  # seconds: the client's chunks


class FakeClock:
    """Moves when it is moved, or when someone waits by it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Outlet:
    """A socket that takes everything at once, or, while it is blocked, no sound."""

    def __init__(self, take: Callable[[server.ServerEvent], None]) -> None:
        self.blocked = False
        self.dropped: list[str] = []
        self.left = 8 * 1024 * 1024  # bytes that may still wait
        self._take = take

    def send(self, event: server.ServerEvent, left: Callable[[], None] | None = None) -> None:
        self._take(event)
        if left is not None and not self.blocked:
            left()

    def room(self) -> int:
        return self.left

    def drop(self, item_id: str) -> None:
        self.dropped.append(item_id)


class Talk:
    """A conversation and its client."""

    def __init__(
        self,
        parts: ModelParts,
        clock: FakeClock,
        type: Literal["realtime", "transcription"] = "realtime",
    ) -> None:
        self.parts = parts
        self.clock = clock
        self.events: list[server.ServerEvent] = []
        self._reader = StrictReader()
        self._arrived = asyncio.Event()
        self._awaited: dict[str, Callable[[], Coroutine[None, None, None]]] = {}
        self._acting: asyncio.Task[None] | None = None
        self.outlet = Outlet(self._take)
        self.conversation = LiveSession(
            parts, Session(id="sess_1", model="scripted", type=type), self.outlet
        )
        self.listening = asyncio.create_task(self.conversation.run())
        self.conversation.open()

    def _take(self, event: server.ServerEvent) -> None:
        self.events.append(event)
        self._reader.read(event)
        self._arrived.set()
        if (act := self._awaited.pop(event.type, None)) is not None:
            self._acting = asyncio.create_task(act())

    def at(self, kind: str, act: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do something at the next event of this type, before a task that begins with it runs."""
        self._awaited[kind] = act

    async def send(self, kind: str, **fields: object) -> None:
        await self.conversation.receive(parse_client_event({"type": kind, **fields}))

    async def say(self, seconds: float, *, loud: bool) -> None:
        """Send sound as a microphone does, the clock going along."""
        data = pcm(seconds, loud=loud)
        size = round(TAIL * 24_000) * 2
        for begin in range(0, len(data), size):
            self.clock.now += TAIL
            await self.append(data[begin : begin + size])
            await asyncio.sleep(0)

    async def append(self, data: bytes) -> None:
        await self.send("input_audio_buffer.append", audio=base64.b64encode(data).decode())

    async def until(self, kind: str, count: int = 1, within: float = SOON) -> server.ServerEvent:
        """The event of this type, the `count`th since the beginning."""
        async with asyncio.timeout(within):
            while len(found := [x for x in self.events if x.type == kind]) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return found[count - 1]

    async def becomes(self, condition: Callable[[], bool]) -> None:
        """Wait for something that no event tells."""
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def sound(self) -> bytes:
        deltas = [x.delta for x in self.events if isinstance(x, server.ResponseOutputAudioDelta)]
        return b"".join(base64.b64decode(delta) for delta in deltas)

    def counted(self, name: str, **labels: str) -> float:
        value = self.parts.services.metrics.registry.get_sample_value(name, labels or None)
        return value or 0.0

    async def close(self) -> None:
        self.listening.cancel()
        await self.conversation.close()
        self.parts.services.executor.close()
        self._reader.check()


async def speak_and_pause(talk: Talk, silence: float = 0.6) -> None:
    await talk.say(0.1, loud=False)
    await talk.say(1.0, loud=True)
    await talk.say(silence, loud=False)
