"""How long one callback holds an event loop: what every other session on it would wait for."""

from __future__ import annotations

import heapq
import time
from asyncio.events import Handle
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from own_time import own_time

# What one session may do on a loop that many share.
BUSY_MS = 20.0  # of computing in one callback
# Of a callback from its begin to its end. More than it computes, for on a busy machine it also
# waits for the interpreter, which other threads hold, and for what the machine's host gives others.
HELD_MS = 50.0
# How many of the longest no test judges: what a client can do to a server it does at every try, and
# what the machine's host takes from a callback, by either clock, comes now and then.
FORGIVEN = 2
FORGIVES_AFTER = 20.0  # seconds of watching: one more for each
KEPT = 12  # the last is judged however long it is watched

_run = Handle._run


class Longest:
    """The longest few of many callbacks."""

    def __init__(self) -> None:
        self._kept = [(0.0, "")] * KEPT  # a heap

    def note(self, seconds: float, what: object) -> None:
        """A callback took so long."""
        if seconds > self._kept[0][0]:
            heapq.heapreplace(self._kept, (seconds, repr(what)))

    def told(self) -> list[tuple[float, str]]:
        """Seconds of each and the callback that took them, the longest first."""
        return sorted(self._kept, reverse=True)

    @property
    def seconds(self) -> float:
        """Of the longest."""
        return max(self._kept)[0]


class LoopWatch:
    """Times each callback on its own, so that many sessions' short turns are not one long one.

    By two clocks. That of its computing tells what it does, whatever else the machine is at, but
    not that it waits for a lock or a file. The other tells that, too; only time in which the loop's
    thread waited for a CPU does not count: other programs took it. Reading both takes some 50 us a
    callback and lets other threads have the interpreter: a bench reads the wall's clock alone.

    Attributes:
        busy: the longest by processor time.
        held: the longest from a callback's begin to its end.
    """

    def __init__(
        self,
        computing: Callable[[], float] = time.thread_time,
        passing: Callable[[], float] = own_time,
    ) -> None:
        """Clocks in seconds: of what the loop's thread computes, and of what passes for it."""
        self._computing, self._passing = computing, passing
        self.reset()

    @classmethod
    def by_the_wall(cls) -> LoopWatch:
        """One that costs a callback hardly anything; time without a CPU counts, as computing."""
        return cls(time.monotonic, time.monotonic)

    def reset(self) -> None:
        """Forget what was seen."""
        self.busy, self.held = Longest(), Longest()
        self._since = time.monotonic()

    @property
    def forgiven(self) -> int:
        """How many of the longest are not judged: the more the longer it watches."""
        more = (time.monotonic() - self._since) // FORGIVES_AFTER
        return min(FORGIVEN + int(more), KEPT - 1)

    def run(self, callback: Handle) -> None:
        """Run one callback."""
        what = callback._callback  # a handle that its own callback cancels forgets it
        began, computed = self._passing(), self._computing()
        _run(callback)
        self.busy.note(self._computing() - computed, what)
        self.held.note(self._passing() - began, what)


@asynccontextmanager
async def watched_loop(watch: LoopWatch | None = None) -> AsyncIterator[LoopWatch]:
    """Watch the running loop, the only one of the process, within the block."""
    watch = watch or LoopWatch()
    Handle._run = lambda callback: watch.run(callback)  # type: ignore[method-assign]
    try:
        yield watch
    finally:
        Handle._run = _run  # type: ignore[method-assign]
