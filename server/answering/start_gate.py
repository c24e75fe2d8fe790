"""When an answer has enough sound to start: enough to last until its next sound.

A client plays from the first sound on. Whether that lasts until the second is there depends on how
fast decoder and vocoder are now, which both show while they work, and on what may come between, as
it has lately, in any answer: on an idle machine the answer can start with its first chunk or two;
on a busy one it starts later, and without a gap. While the next is made the rest of the wait for it
becomes shorter: what is made is enough as soon as it covers that.
"""

from __future__ import annotations

import math

from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.compute.chunk_delays import ChunkDelays

# A vocoder's chunks grow, and a larger one takes longer, though less than in proportion (nano's, on
# one core: 42 ms for two groups, 53 for four, 71 for six), and a shared core is sometimes slower.
CHUNK_COST_GROWTH = 2.0

# Least sound to start with: a vocoder's first chunk, less its look-ahead, may last 30 ms, and the
# client has played it before the second is made.
MIN_START_SECONDS = 0.12
FAST_PACE = GROUP_SECONDS / 2  # of a decoder that makes up for a beginning with little sound
MAX_START_SECONDS = 0.8  # of sound, with which an answer starts whatever is estimated


class StartGate:
    """One answer's. Times are seconds of one clock."""

    def __init__(self, delays: ChunkDelays) -> None:
        """`delays`: of all answers' chunks."""
        self._delays = delays
        self._first = self._last = 0.0
        self._decoded = 0  # groups
        self._vocoded = 0  # groups, of these
        self._took = 0.0

    def decoded(self, now: float) -> None:
        """The decoder has made one more group."""
        if not self._decoded:
            self._first = now
        self._last = now
        self._decoded += 1

    def vocoded(self, groups: int, took: float, waited: float | None = None) -> None:
        """The vocoder has taken `groups` more groups, in `took` seconds without its waiting.

        `waited`: seconds until the sound was there; None: nobody waited for it.
        """
        if self._vocoded and waited is not None:
            self._delays.came(waited - self._took)
        self._vocoded += groups
        self._took = took

    def until_next(self, busy: float = 0.0) -> float:
        """Estimated seconds until the next sound, with `busy` until the vocoder comes to it.

        The time for the decoder to make the groups that the next chunk needs (at most as many as
        have been vocoded), and the time to vocode it: as it is now, or as it was when others came
        between.
        """
        missing = max(0, 2 * self._vocoded - self._decoded)
        usual, delayed = CHUNK_COST_GROWTH * self._took + busy, self._took + self._delays.most()
        return missing * self._pace() + max(usual, delayed)

    def _pace(self) -> float:
        """Seconds that the decoder takes for a group."""
        return (self._last - self._first) / max(1, self._decoded - 1)

    def wait(self, made: float, busy: float) -> float:
        """Seconds until what is made lasts until more is, if none comes before; 0: it does.

        Infinite for so little that a client has played it before anything can be told, and where
        the decoder is not much faster than its sound is played: there an answer lives on what it
        began with.

        Args:
            made: seconds of sound.
            busy: seconds until the vocoder comes to the next chunk, as it is loaded now.
        """
        until_next = self.until_next(busy)
        if made >= min(max(MIN_START_SECONDS, until_next), MAX_START_SECONDS):
            return 0.0
        if made < MIN_START_SECONDS or self._pace() > FAST_PACE:
            return math.inf
        return until_next - made
