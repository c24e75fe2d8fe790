"""An event loop whose time is simulated: what waits costs nothing, and what computes says how long.

Time goes on to the next timer when nothing else is left to do. An executor without threads
(`SteppedExecutor`) computes on the loop, one batch at a time, and what takes time moves the clock.
So what waits for what follows from the order of work alone, the same on each run and machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aqaa.server.compute.executor import Executor

T = TypeVar("T")


class SimulatedLoop(asyncio.SelectorEventLoop):
    """Its time begins at 1000 s."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.compute: Callable[[], bool] = lambda: False  # some of what waits; False: nothing does

    def time(self) -> float:
        """Seconds."""
        return self.now

    def _run_once(self) -> None:
        timers = self._scheduled  # type: ignore[attr-defined]
        while not self._ready:  # type: ignore[attr-defined]
            due = timers[0].when() if timers else None
            if due is not None and due <= self.now:
                break
            if not self.compute():
                self.now = self.now if due is None else due
                break
        super()._run_once()  # type: ignore[misc]


class SimulatedClock:
    """The running simulated loop's time."""

    @property
    def now(self) -> float:
        """Seconds; may be set, to a later time."""
        return _loop().now

    @now.setter
    def now(self, seconds: float) -> None:
        _loop().now = seconds

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


class SteppedExecutor(Executor):
    """Without threads: it computes when it is told to, what is most urgent first."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(0, clock=clock)

    def step(self) -> bool:
        """Compute what is most urgent; False if there is nothing."""
        return bool(self.waiting()) and self._turn()

    def compute_on_loop(self) -> None:
        """Have the running simulated loop compute whenever it has nothing else to do."""
        _loop().compute = self.step


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """What `main` returns, in simulated time."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)


def _loop() -> SimulatedLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    return loop
