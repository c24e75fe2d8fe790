"""When an answer's next sound will be there, judged by how the last came.

A client plays from the first sound on. Whether that lasts until the second is there depends on how
fast decoder and voice are just now, which is for the two to show: on an idle machine the answer can
start with its first chunk or two, on a busy one it starts later and without a gap.
"""

from __future__ import annotations

# A vocoder's chunks grow, and a larger one takes longer, though less than in proportion (nano's, on
# one core: 42 ms for two groups, 53 for four, 71 for six), and a shared core is sometimes slower.
VOICE_GROWTH = 2.0


class Forecast:
    """One answer's. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._first = self._last = 0.0
        self._groups = 0  # made by the decoder
        self._spoken = 0  # of these, given to the voice
        self._took = 0.0

    def group(self, now: float) -> None:
        """The decoder has made one more group."""
        if not self._groups:
            self._first = now
        self._last = now
        self._groups += 1

    def spoken(self, groups: int, took: float) -> None:
        """The voice has made sound of so many groups more, in so many seconds, waiting included."""
        self._spoken += groups
        self._took = took

    def wait(self) -> float:
        """Seconds until more sound: the voice may want as many groups again as it had, and time."""
        missing = max(0, 2 * self._spoken - self._groups)
        pace = (self._last - self._first) / max(1, self._groups - 1)
        return missing * pace + VOICE_GROWTH * self._took
