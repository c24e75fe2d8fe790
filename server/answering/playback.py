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
        self.runs_out: float | None = None  # when all that was sent is played; None: nothing was

    def send(self, seconds: float, now: float) -> float:
        """`seconds` of sound leave now; returns how long the client had nothing to play before."""
        gap = 0.0
        if self.runs_out is None:
            self.runs_out = now
        elif now > self.runs_out:
            gap = now - self.runs_out
            self.gaps += 1
            self.runs_out = now
        self.runs_out += seconds
        self.sent += seconds
        return gap

    def be_heard(self, now: float, until_more: float) -> None:
        """Somebody may be listening from now on: if all is played before there is more, in
        `until_more` seconds, it begins with that."""
        if self.ahead(now) <= until_more:
            self.runs_out = None

    def heard(self, now: float) -> float:
        """Seconds of the answer's sound that have been played."""
        return self.sent - self.ahead(now)

    def ahead(self, now: float) -> float:
        """Seconds of sound that were sent and are not played yet."""
        return 0.0 if self.runs_out is None else max(0.0, self.runs_out - now)
