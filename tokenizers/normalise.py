"""Preparation of audio as the reference does it, and what a stream does in its place.

The reference scales a whole utterance to one peak and may cut off its silent ends. A stream does
not know its peak yet: it is scaled by the loudest sample so far, and never cut.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import AudioError
from aqaa.tokenizers.stream import Samples, check_samples

_TARGET_PEAK = 0.999
_MIN_PEAK = 0.01  # quieter audio is scaled as if its peak were this

_GAIN_BLOCK_SAMPLES = 160  # 10 ms: the hop of both tokenizers' features

# librosa.effects.trim(top_db=20, frame_length=512, hop_length=128)
_TRIM_DB = 20.0
_TRIM_FRAME_SAMPLES = 512
_TRIM_HOP_SAMPLES = 128
_TRIM_FLOOR_AMPLITUDE = 1e-5  # librosa's amplitude floor before decibels
_TRIM_UNIT_SAMPLES = 240  # what is kept is a multiple of this ...
_KEEP_LEFT_SAMPLES = 800  # ... and 50 ms before
_KEEP_RIGHT_SAMPLES = 3520  # ... and 220 ms after


def prepare(wav: NDArray[np.generic], *, normalise: bool = False, trim: bool = False) -> Samples:
    """`wav` [n] checked, and scaled and trimmed if asked, in the reference's order.

    Raises:
        AudioError: empty or unusable audio.
    """
    samples = check_samples(wav)
    if not samples.size:
        raise AudioError("the audio is empty: there is nothing to tokenize")
    if normalise:
        samples = peak_normalise(samples)
    return trim_silence(samples) if trim else samples


def peak_normalise(samples: Samples) -> Samples:
    """Scale to a peak of 0.999; audio below a peak of 0.01 by the factor for 0.01."""
    peak = max(float(np.abs(samples).max()), _MIN_PEAK)
    return samples / np.float32(peak) * np.float32(_TARGET_PEAK)


class RunningGain:
    """Peak normalisation of a stream: by the loudest sample so far, or a presumed peak if larger.

    The gain is one for each block of 10 ms, so that it does not depend on how audio was cut.
    """

    def __init__(self, presumed_peak: float) -> None:
        self._peak = presumed_peak
        self._waiting = np.empty(0, np.float32)  # a block that is not whole yet

    def push(self, pcm: Samples) -> Samples:
        """The scaled samples of the blocks that `pcm` [n] completes."""
        samples = np.concatenate([self._waiting, pcm])
        whole = samples.size - samples.size % _GAIN_BLOCK_SAMPLES
        self._waiting = samples[whole:].copy()
        return self._scale(samples[:whole].reshape(-1, _GAIN_BLOCK_SAMPLES))

    def flush(self) -> Samples:
        """The scaled samples of the last block, which may be short."""
        last, self._waiting = self._waiting, np.empty(0, np.float32)
        return self._scale(last[None])

    def copy(self) -> RunningGain:
        """An independent gain in the same state."""
        other = RunningGain(self._peak)
        other._waiting = self._waiting
        return other

    def _scale(self, blocks: Samples) -> Samples:
        if not blocks.size:
            return np.empty(0, np.float32)
        peaks = np.maximum.accumulate(np.maximum(np.abs(blocks).max(axis=1), self._peak))
        self._peak = float(peaks[-1])
        scaled = blocks / peaks[:, None].astype(np.float32) * np.float32(_TARGET_PEAK)
        return np.asarray(scaled, np.float32).reshape(-1)


def trim_silence(samples: Samples) -> Samples:
    """Cut quiet ends (20 dB below the loudest 32 ms) to 50 ms before and 220 ms after the speech.

    The length becomes a multiple of 240 samples plus 4,320, filled up with zeros: it may be longer
    than the input.
    """
    first, last = loud_span(samples)
    start = first - _KEEP_LEFT_SAMPLES
    length = (
        math.ceil((last - first) / _TRIM_UNIT_SAMPLES) * _TRIM_UNIT_SAMPLES
        + _KEEP_LEFT_SAMPLES
        + _KEEP_RIGHT_SAMPLES
    )
    kept = samples[max(0, start) : max(0, start + length)]
    left = max(0, -start)
    return np.pad(kept, (left, length - left - kept.size))


def loud_span(samples: Samples) -> tuple[int, int]:
    """First sample of the loud part and one past its last, as librosa finds them."""
    padded = np.pad(samples, _TRIM_FRAME_SAMPLES // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, _TRIM_FRAME_SAMPLES)
    frames = windows[::_TRIM_HOP_SAMPLES]
    rms = np.sqrt(np.mean(np.square(frames), axis=1))
    level = 20 * np.log10(np.maximum(rms, _TRIM_FLOOR_AMPLITUDE))
    loud = np.flatnonzero(level > level.max() - _TRIM_DB)
    first, last = int(loud[0]), int(loud[-1]) + 1
    return first * _TRIM_HOP_SAMPLES, min(samples.size, last * _TRIM_HOP_SAMPLES)
