"""How much later than might be a chunk of an answer's sound comes now and then."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from aqaa.server.compute.places import WINDOW_SECONDS
from aqaa.server.compute.waiting import RARELY


class ChunkDelays:
    """Of all answers that somebody hears or waits for, lately. For one event loop."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` tells seconds."""
        self._clock = clock
        self._lately: deque[tuple[float, float]] = deque()

    def came(self, late: float) -> None:
        """A chunk was waited for, `late` seconds longer than the one before had taken."""
        self._lately.append((self._clock(), late))

    def most(self) -> float:
        """Seconds by which a chunk may be late, but for `RARELY`; 0 if none was lately."""
        while self._lately and self._lately[0][0] < self._clock() - WINDOW_SECONDS:
            self._lately.popleft()
        delays = sorted(late for _, late in self._lately)
        return max(0.0, delays[math.ceil((1 - RARELY) * len(delays)) - 1]) if delays else 0.0
