"""Conversations that are open while something befalls the installation that they go through.

Ears and voice are scripted (`relaying_asgi`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from own_time import own_time
from scripted import pcm
from serving import READY_WITHIN

from aqaa.clients.client import Connection, connect
from aqaa.clients.turn import SpokenAnswer, speak

SPEECH = np.frombuffer(pcm(0.6, loud=True), "<i2").astype(np.float32) / 32768
CALLERS = 8
WORD_WITHIN = 2.0  # seconds in which a caller must hear what happened
GAP = 0.5  # seconds that may be heard after a kill, beyond what an undisturbed answer has
log = logging.getLogger(__name__)


@dataclass
class Caller:
    """One conversation, and what it was told."""

    server: Connection | None = None
    words: list[tuple[float, str]] = field(default_factory=list)
    began: asyncio.Event = field(default_factory=asyncio.Event)

    def trouble(self, why: str) -> None:
        self.words.append((own_time(), why))

    async def speak(self) -> SpokenAnswer:
        assert self.server is not None
        turn = await speak(self.server, SPEECH, on_sound=lambda _: self.began.set())
        if turn.status == "failed":
            self.words.append((own_time(), "the answer failed"))
        return turn


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
        next_turns: once everything was back.
    """

    turns: list[SpokenAnswer]
    words: list[float]
    next_turns: list[SpokenAnswer]

    @property
    def added_gap(self) -> float:
        """The longest gap, in seconds, beyond the longest of undisturbed answers."""
        struck, quiet = (max(t.gap_seconds for t in x) for x in (self.turns, self.next_turns))
        return struck - quiet


async def disturbed(
    name: str,
    callers: list[Caller],
    strike: Callable[[], None],
    mend: Callable[[], None],
    is_whole: Callable[[], bool],
    away: float,
) -> Seen:
    """All hear an answer when the blow falls; it is mended `away` seconds later."""
    speaking = asyncio.create_task(all_speak(callers))
    async with asyncio.timeout(30):
        await asyncio.gather(*(caller.began.wait() for caller in callers))
    at = own_time()
    strike()
    await asyncio.sleep(away)
    await asyncio.to_thread(mend)
    turns = await speaking
    words = [caller.words[0][0] - at for caller in callers if caller.words]
    async with asyncio.timeout(READY_WITHIN):
        while not await asyncio.to_thread(is_whole):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    seen = Seen(turns, words, await all_speak(callers))
    rounded = [round(word, 2) for word in words]
    gaps = [round(turn.gap_seconds, 2) for turn in turns]
    log.warning(
        "%s: words after %s s, gaps %s s, %.2f s more than undisturbed",
        *(name, rounded, gaps, seen.added_gap),
    )
    return seen
