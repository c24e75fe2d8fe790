"""How many ids a second an engine makes, over the last few seconds."""

from __future__ import annotations

import time
from collections import deque

SECONDS = 5.0  # long enough to smooth an answer, short enough to follow the load


class Rate:
    """A count over a sliding window."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> None:
        """`count` more, now."""
        self._seen.append((time.monotonic(), count))
        self._trim()

    def value(self) -> float:
        """Counts a second."""
        self._trim()
        return sum(count for _, count in self._seen) / SECONDS

    def _trim(self) -> None:
        oldest = time.monotonic() - SECONDS
        while self._seen and self._seen[0][0] < oldest:
            self._seen.popleft()
