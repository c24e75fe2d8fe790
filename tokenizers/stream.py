"""What every token stream has: checked input, a sample buffer, `push`, `flush` and `fork`.

A stream belongs to one session. It holds its own small state and refers to weights that all streams
share. It is not thread-safe: one call at a time, from any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Self

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError, StreamClosedError
from aqaa.tokenizers.steps import Network, Reply, Request, Steps, run_alone

Samples = NDArray[np.float32]
Codes = NDArray[np.int32]

# A push of any length is worked off in slices of a second, so that a stream that was once given an
# hour is no larger than one that was given a minute.
_SLICE_SAMPLES = TOKENIZER_RATE

# Full scale is 1. A resampler overshoots it by a fraction; ten times as much are integers.
_MAX_AMPLITUDE = 8.0


def check_samples(pcm: NDArray[np.generic]) -> Samples:
    """`pcm` as contiguous float32 `[n]`, if it can be audio on the scale of [-1, 1].

    Raises:
        AudioError: not one-dimensional, not floating point, NaN or infinite, or on integer scale.
    """
    samples = np.asarray(pcm)
    if samples.ndim != 1:
        raise AudioError(f"expected mono samples of shape [n], got {list(samples.shape)}: mix down")
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"expected float samples in [-1, 1], got {samples.dtype}: "
            "convert client audio with aqaa.server.audio.wire.InputConverter"
        )
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if samples.size:
        peak = max(float(samples.max()), -float(samples.min()))
        if not peak < np.inf:  # also false for NaN
            raise AudioError("audio holds NaN or infinite samples: check the client's conversion")
        if peak > _MAX_AMPLITUDE:
            raise AudioError(
                f"samples reach {peak:.0f}: floats must lie in [-1, 1]; divide int16 by 32768"
            )
    return samples


class SampleBuffer:
    """A queue of float32 samples with cheap appends, even of one sample at a time."""

    def __init__(self) -> None:
        self._data: Samples = np.empty(8192, np.float32)  # half a second; grows if ever needed
        self._start = 0
        self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    def append(self, samples: Samples) -> None:
        """Add `samples` [n] at the end."""
        if self._stop + samples.size > self._data.size:
            kept = self.peek(len(self))
            size = max(self._data.size, 2 * (kept.size + samples.size))
            self._data, self._start, self._stop = np.empty(size, np.float32), 0, kept.size
            self._data[: kept.size] = kept
        self._data[self._stop : self._stop + samples.size] = samples
        self._stop += samples.size

    def peek(self, count: int) -> Samples:
        """The first `count` samples as a view, valid until the next append."""
        return self._data[self._start : self._start + count]

    def drop(self, count: int) -> None:
        """Forget the first `count` samples."""
        self._start += count

    def copy(self) -> SampleBuffer:
        """An independent buffer with the same samples."""
        other = SampleBuffer()
        other.append(self.peek(len(self)))
        return other


class TokenStream(ABC, Generic[Request, Reply]):
    """Raw codes from 16 kHz audio: `push` what has come, `flush` at the end, `fork` to try an end.

    The codes of all pushes and the flush together do not depend on how the audio was cut, nor on
    what else a network computed in the same call.
    """

    def __init__(self, network: Network[Request, Reply]) -> None:
        self._network = network
        self._closed = False

    @abstractmethod
    def _consume(self, pcm: Samples) -> Steps[Request, Reply, Codes]: ...

    @abstractmethod
    def _finish(self) -> Steps[Request, Reply, Codes]: ...

    @abstractmethod
    def _copy_state(self, original: Self) -> None:
        """Take `original`'s state; nothing that changes later may be shared."""

    def pushing(self, pcm: NDArray[np.generic]) -> Steps[Request, Reply, Codes]:
        """`push`, step by step (`tokenizers.steps`). Dropping it half-way closes the stream."""
        self._check_open()
        samples = check_samples(pcm)
        parts: list[Codes] = []
        try:
            for start in range(0, samples.size, _SLICE_SAMPLES):
                parts.append((yield from self._consume(samples[start : start + _SLICE_SAMPLES])))
        except BaseException:
            self._closed = True  # whatever it was: a stream is whole or closed
            raise
        return join_codes(parts)

    def flushing(self) -> Steps[Request, Reply, Codes]:
        """`flush`, step by step."""
        self._check_open()
        self._closed = True
        return (yield from self._finish())

    def push(self, pcm: NDArray[np.generic]) -> Codes:
        """Codes `[n]` int32 that `pcm` (float32 `[m]`, 16 kHz mono) completes; often none.

        Raises:
            AudioError: unusable samples; the stream is as it was and may be used on.
            StreamClosedError: the stream was flushed, or a fault closed it.
        """
        return run_alone(self.pushing(pcm), self._network)

    def flush(self) -> Codes:
        """The codes `[n]` int32 that were waiting for more audio; closes the stream.

        Raises:
            StreamClosedError: the stream was flushed before, or a fault closed it.
        """
        return run_alone(self.flushing(), self._network)

    def fork(self) -> Self:
        """An independent stream in the same state: flush the copy, go on with the original."""
        self._check_open()
        other = self.__class__.__new__(self.__class__)
        other._network = self._network
        other._closed = False
        other._copy_state(self)
        return other

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError("this token stream has ended: open a new one")


def join_codes(parts: list[Codes]) -> Codes:
    """One int32 array of all `parts`, empty if there are none."""
    return np.concatenate(parts, dtype=np.int32) if parts else np.empty(0, np.int32)
