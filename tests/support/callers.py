"""Conversations that are open while something befalls the installation that they go through.

Ears and voice are scripted (`relaying_asgi`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from host_pauses import HOST_SECONDS
from numpy.typing import NDArray
from own_time import own_time
from scripted import pcm
from serving import READY_WITHIN

from aqaa.clients.client import Connection, connect
from aqaa.clients.turn import GapCounter, SpokenAnswer, speak

SPEECH = np.frombuffer(pcm(0.6, loud=True), "<i2").astype(np.float32) / 32768
CALLERS = 8
WORD_WITHIN = 2.0 + HOST_SECONDS  # in two seconds a caller must hear what happened
GAP = 0.5  # seconds that may be heard after a kill, beyond what an undisturbed answer has
log = logging.getLogger(__name__)


@dataclass
class Ear(GapCounter):
    """Hears one turn, and knows its longest gap, in seconds."""

    longest_gap: float = 0.0

    def play(self, samples: int, now: float) -> None:
        before = self.gap_seconds
        super().play(samples, now)
        self.longest_gap = max(self.longest_gap, self.gap_seconds - before)


@dataclass
class Caller:
    """One conversation, and what it was told and heard."""

    server: Connection | None = None
    words: list[tuple[float, str]] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ear: Ear = field(default_factory=Ear)

    def trouble(self, why: str) -> None:
        self.words.append((own_time(), why))

    async def speak(self) -> SpokenAnswer:
        assert self.server is not None
        self.ear = Ear()
        turn = await speak(self.server, SPEECH, on_sound=self._hear)
        if turn.status == "failed":
            self.words.append((own_time(), "the answer failed"))
        return turn

    def _hear(self, piece: NDArray[np.float32]) -> None:
        self.ear.play(piece.size, time.monotonic())
        self.began.set()


@asynccontextmanager
async def conversations(url: str, **session: Any) -> AsyncIterator[list[Caller]]:
    """All callers are in a conversation with these settings."""
    async with AsyncExitStack() as stack:
        callers = [Caller() for _ in range(CALLERS)]
        for caller in callers:
            opening = connect(url, on_trouble=caller.trouble)
            caller.server = await stack.enter_async_context(opening)
            if session:
                await caller.server.update_session(**session)
        yield callers


async def all_speak(callers: list[Caller]) -> list[SpokenAnswer]:
    """A turn of each, at the same time."""
    async with asyncio.timeout(60):
        return await asyncio.gather(*(caller.speak() for caller in callers))


@dataclass
class Seen:
    """What came of a blow.

    Attributes:
        turns: in which it fell.
        words: of each caller, how long after the blow it had the first word about it, in seconds.
        gap: the longest that one of them heard in these turns, in seconds.
        next_turns: once everything was back.
        quiet_gap: the longest in those.
    """

    turns: list[SpokenAnswer]
    words: list[float]
    gap: float
    next_turns: list[SpokenAnswer]
    quiet_gap: float

    @property
    def added_gap(self) -> float:
        """What the blow added to the longest gap, in seconds."""
        return self.gap - self.quiet_gap


async def disturbed(
    name: str,
    callers: list[Caller],
    strike: Callable[[], None],
    mend: Callable[[], None],
    is_whole: Callable[[], bool],
    away: float,
) -> Seen:
    """All hear an answer when the blow falls; it is mended `away` seconds later."""
    for caller in callers:
        caller.began.clear()
    speaking = asyncio.create_task(all_speak(callers))
    async with asyncio.timeout(30):
        await asyncio.gather(*(caller.began.wait() for caller in callers))
    at = own_time()
    strike()
    await asyncio.sleep(away)
    await asyncio.to_thread(mend)
    turns = await speaking
    words = [caller.words[0][0] - at for caller in callers if caller.words]
    gaps = [caller.ear.longest_gap for caller in callers]
    async with asyncio.timeout(READY_WITHIN):
        while not await asyncio.to_thread(is_whole):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    next_turns = await all_speak(callers)
    quiet_gaps = [caller.ear.longest_gap for caller in callers]
    seen = Seen(turns, words, max(gaps), next_turns, max(quiet_gaps))
    rounded = ([round(seconds, 2) for seconds in each] for each in (words, gaps, quiet_gaps))
    log.warning("%s: words after %s s, longest gaps %s s, undisturbed %s s", name, *rounded)
    return seen
