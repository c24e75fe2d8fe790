"""How many ids an engine generates a second, measured over the last few seconds."""

from __future__ import annotations

import time
from collections import deque

WINDOW_SECONDS = 5.0  # long enough to smooth an answer, short enough to follow the load


class Rate:
    """Counts a second over a sliding window of `WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """Count `count` more, now."""
        self._counts.append((time.monotonic(), count))
        self._trim()

    def value(self) -> float:
        """Counts a second."""
        self._trim()
        return sum(count for _, count in self._counts) / WINDOW_SECONDS

    def _trim(self) -> None:
        oldest = time.monotonic() - WINDOW_SECONDS
        while self._counts and self._counts[0][0] < oldest:
            self._counts.popleft()
