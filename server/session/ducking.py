"""The answer made quiet while it is doubtful whether the user interrupts it.

What is sent is played a little later, by clients that keep much of it seconds later. So the gain
goes by when a sound is *played*: low from the doubt's beginning until it is settled, or at the most
until `LONGEST_SECONDS` later. What a client has already is beyond reach; those that keep much can
be told (extension `interruptions`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aqaa.server.audio.wire import AudioFormat, decode, encode

GAIN = 10 ** (-14 / 20)  # a fifth: plainly in the background, and not gone
RAMP_SECONDS = 0.03  # from one level to the other, without a click
LONGEST_SECONDS = 0.9  # about as long as a verdict takes


class Ducking:
    """One session's. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._until: float | None = None  # sound is low that is played before
        self._level = 1.0  # at the end of what was sent last

    def begin(self, now: float) -> None:
        """Somebody speaks, perhaps to interrupt."""
        self._until = now + LONGEST_SECONDS

    def end(self) -> None:
        """It was no interruption, or the answer is over."""
        self._until = None

    def forget(self) -> None:
        """Another answer begins: at full level, without a ramp."""
        self._until, self._level = None, 1.0

    def applied(self, data: bytes, format: AudioFormat, starts: float) -> bytes:
        """`data`, which begins to be played at `starts`, as loud as it is to be."""
        low = 0.0 if self._until is None else max(0.0, self._until - starts)
        if low == 0.0 and self._level == 1.0:
            return data
        wave = decode(data, format)
        seconds = np.arange(1, wave.size + 1) / format.rate
        gains = self._gains(seconds, low)
        if wave.size:
            self._level = float(gains[-1])
        return encode((wave * gains).astype(np.float32), format)

    def _gains(self, seconds: NDArray[np.float64], low: float) -> NDArray[np.float64]:
        """The level at each of `seconds` of a piece that is to be low for its first `low`."""
        slope = (1.0 - GAIN) / RAMP_SECONDS
        falling = np.maximum(GAIN, self._level - slope * seconds)
        lowest = max(GAIN, self._level - slope * low)
        rising = np.minimum(1.0, lowest + slope * (seconds - low))
        return np.where(seconds <= low, falling, rising)
