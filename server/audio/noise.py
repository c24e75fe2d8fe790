"""Noise reduction of a microphone's sound: WebRTC's noise suppressor, 10 ms at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from webrtc_noise_gain import AudioProcessor

from aqaa.tokenizers.stream import SampleBuffer

Samples = NDArray[np.float32]

BLOCK = 160  # samples of 10 ms at 16 kHz: what the suppressor takes
STRONGEST = 4  # its levels go from 0, off, to this
_NO_GAIN = 0
_INT16_SCALE = 32768


class NoiseFilter:
    """One microphone's suppressor. It holds back what is less than a block."""

    def __init__(self, level: int) -> None:
        """`level`: 1 to `STRONGEST`."""
        self._processor = AudioProcessor(_NO_GAIN, level)
        self._waiting = SampleBuffer()

    def push(self, samples: Samples) -> Samples:
        """Float32 `[n]` at 16 kHz without noise: the blocks that `samples` complete."""
        self._waiting.append(samples)
        return self._take(len(self._waiting) // BLOCK * BLOCK)

    def flush(self) -> Samples:
        """The rest."""
        rest = len(self._waiting)
        self._waiting.append(np.zeros(-rest % BLOCK, np.float32))
        return self._take(len(self._waiting))[:rest]

    def _take(self, count: int) -> Samples:
        scaled = np.clip(self._waiting.peek(count) * _INT16_SCALE, -_INT16_SCALE, _INT16_SCALE - 1)
        self._waiting.drop(count)
        data = scaled.astype("<i2").tobytes()
        blocks = (data[begin : begin + 2 * BLOCK] for begin in range(0, len(data), 2 * BLOCK))
        clean = b"".join(self._processor.Process10ms(block).audio for block in blocks)
        return np.frombuffer(clean, "<i2").astype(np.float32) / np.float32(_INT16_SCALE)
