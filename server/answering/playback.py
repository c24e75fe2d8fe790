"""What of an answer the client can have played: a clock beside what was sent.

A client plays as soon as the first sound arrives and goes on at the pace of the sound. It tells
what it really played only if it truncates; until then, and for clients that never do, this is the
server's own account.
"""

from __future__ import annotations


class Playback:
    """One answer's sound. Times are seconds of one clock, lengths seconds of sound."""

    def __init__(self) -> None:
        self.sent = 0.0
        self.gaps = 0
        self._until: float | None = None

    def send(self, seconds: float, now: float) -> float:
        """`seconds` of sound leave now; returns how long the client had nothing to play before."""
        gap = 0.0
        if self._until is None:
            self._until = now
        elif now > self._until:
            gap = now - self._until
            self.gaps += 1
            self._until = now
        self._until += seconds
        self.sent += seconds
        return gap

    def heard(self, now: float) -> float:
        """Seconds of the answer's sound that have been played."""
        return self.sent - self.ahead(now)

    def ahead(self, now: float) -> float:
        """Seconds of sound that were sent and are not played yet."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def needed_at(self, first: float) -> float:
        """When the client will have nothing left to play; `first` if it has nothing yet."""
        return first if self._until is None else self._until
