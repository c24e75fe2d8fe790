"""What the client plays of the assistant, on the clock of what its microphone sends.

The server knows what it sent and, by `answering.playback`, about when it is played. So it can say
whether the assistant is heard while somebody speaks, and whether what the microphone hears is the
assistant itself: then what it hears is what is played, at some delay that nobody knows exactly,
through a short filter (the loudspeaker, the nearest walls).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.audio.wire import AudioFormat, InputConverter

Samples = NDArray[np.float32]
Sound = NDArray[np.float64]

KEPT_SECONDS = 1.5  # of what was played: a doubt and the longest way of an echo
TAIL_SECONDS = 0.3  # after the last sound: networks and sound cards play it so much later
# How much later than it seems a sound may come back (jitter buffer, sound card, air, microphone,
# network), and how much sooner: a queue of the server's may hold the microphone's sound up.
LATEST_SECONDS = 0.8
SOONEST_SECONDS = 0.2
PRE_EMPHASIS = 0.9  # speech falls by 6 dB an octave: without it any two vowels are alike
# The filter, at half the rate: 24 ms. Longer explains more of an echo in a room, and of any other
# voice too: of 60 clips of 0.32 s the share was above 0.42 in 95 % of the echoes (0.3 to 1.5 m,
# decay 0.15 to 0.5 s), in 5 % of other voices, and in 10 % where one spoke over an echo 6 dB lower.
TAPS = 192
TAPS_BEFORE = 8  # the loudest reflection is not always the first
RIDGE = 1e-3  # of the mean power: speech leaves some frequencies empty


@dataclass(frozen=True)
class _Piece:
    data: bytes
    begin: int  # sample of the microphone's at which it begins to be played
    end: int


class Loudspeaker:
    """One session's. Positions are samples at 16 kHz since the session's first."""

    def __init__(self) -> None:
        self._format = AudioFormat()
        self._pieces: deque[_Piece] = deque()
        self._plays = False

    def play(self, data: bytes, format: AudioFormat, begin: int, now: int) -> None:
        """`data` of this format is played from `begin` on. What was played long before `now` is
        forgotten: what is kept is at most what is sent ahead, and `KEPT_SECONDS`."""
        if format != self._format:
            self._pieces.clear()
            self._format = format
        self._plays = True
        samples = len(data) // format.sample_bytes * TOKENIZER_RATE // format.rate
        self._pieces.append(_Piece(data, begin, begin + samples))
        while self._pieces[0].end < now - KEPT_SECONDS * TOKENIZER_RATE:
            self._pieces.popleft()

    def stop(self, now: int) -> None:
        """It falls silent at `now`; what was played till then may still come back."""
        self._plays = False
        pieces = [replace(one, end=min(one.end, now)) for one in self._pieces if one.begin < now]
        self._pieces = deque(pieces)

    def heard_at(self, sample: int) -> bool:
        """Whether the assistant is heard there."""
        tail = round(TAIL_SECONDS * TOKENIZER_RATE)
        return self._plays and any(
            piece.begin <= sample < piece.end + tail for piece in self._pieces
        )

    def echo_in(self, heard: Samples, begin: int) -> float:
        """What share of `heard` (float32 [n], from sample `begin` on) is what is played, 0 to 1.

        0 where less was played than was heard. Takes about 10 ms for 0.3 s of sound.
        """
        since = begin - round(LATEST_SECONDS * TOKENIZER_RATE)
        until = begin + heard.size + round(SOONEST_SECONDS * TOKENIZER_RATE)
        return echo_share(heard, self._played(since, until))

    def _played(self, since: int, until: int) -> Samples:
        """What is played from one sample to another, silence where there is nothing."""
        out = np.zeros(max(0, until - since), np.float32)
        for piece in self._pieces:
            if piece.end <= since or piece.begin >= until:
                continue
            converter = InputConverter(self._format)
            sound = np.concatenate((converter.push(piece.data), converter.flush()))
            first = max(0, since - piece.begin)
            sound = sound[first : min(until, piece.end) - piece.begin]
            at = piece.begin + first - since
            out[at : at + sound.size] = sound[: out.size - at]
        return out


def echo_share(heard: Samples, played: Samples) -> float:
    """The share of the energy of `heard` that a short filter makes of some stretch of `played`.

    float32 [n] and [m] at 16 kHz, n <= m. It is lessened by what the filter would explain of any
    sound, so it may come to a little below 0.
    """
    short, long = _halved(heard), _halved(played)
    own = float(np.dot(short, short))
    if short.size <= TAPS or own <= 0.0 or not long.any():
        return 0.0
    behind = TAPS - TAPS_BEFORE
    padded = np.pad(long, (TAPS, TAPS))
    first = TAPS + _delay(short, long) - behind
    columns = sliding_window_view(padded[first : first + short.size + TAPS - 1], TAPS)
    normal = columns.T @ columns
    normal[np.diag_indices(TAPS)] += RIDGE * np.trace(normal) / TAPS
    rest = short - columns @ np.linalg.solve(normal, columns.T @ short)
    unexplained = float(np.dot(rest, rest)) / own
    return 1.0 - unexplained * (short.size - 1) / (short.size - TAPS - 1)


def _delay(short: Sound, long: Sound) -> int:
    """Where in `long` the stretch begins that is most like `short`."""
    size = 1 << int(np.ceil(np.log2(long.size + short.size)))
    spectrum = np.fft.rfft(long, size) * np.conj(np.fft.rfft(short, size))
    products = np.fft.irfft(spectrum, size)[: long.size - short.size + 1]
    energy = np.concatenate(([0.0], np.cumsum(np.square(long))))
    stretches = energy[short.size :] - energy[: energy.size - short.size]
    # A stretch that is almost silent is like anything: it counts as one 40 dB below the loudest.
    return int(np.argmax(np.abs(products) / np.sqrt(np.maximum(stretches, 1e-4 * stretches.max()))))


def _halved(wave: Samples) -> Sound:
    """`wave` pre-emphasised, at half its rate."""
    high = np.diff(wave.astype(np.float64), prepend=0.0) + (1 - PRE_EMPHASIS) * wave
    return np.convolve(high, _SMOOTH, "same")[::2]


_SMOOTH = np.hanning(9) / np.hanning(9).sum()
