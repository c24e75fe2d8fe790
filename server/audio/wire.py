"""Audio between clients and the models: any wire format to 16 kHz float, and back again.

A stream's state is its resampler and two counters. soxr keeps some tens of milliseconds inside
(about 20 at 24 and 48 kHz, 65 at 8 kHz) and returns them on `flush`. The total is exact: n samples
at rate r become round(n * 16000 / r), however long the stream is and however it is cut.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.errors import AudioError, StreamClosedError
from aqaa.server.audio.noise import NoiseFilter
from aqaa.tokenizers.stream import Samples, check_samples

Encoding = Literal["pcm16", "pcmu", "pcma"]

_SAMPLE_BYTES: dict[str, int] = {"pcm16": 2, "pcmu": 1, "pcma": 1}
LOWEST_RATE = 8_000  # Hz; telephony
HIGHEST_RATE = 192_000  # Hz; the highest that sound cards offer
_G711_RATE = 8_000  # Hz; ITU-T G.711
_INT16_SCALE = 32768


@dataclass(frozen=True)
class AudioFormat:
    """How mono samples lie on the wire, little-endian.

    Raises:
        AudioError: an unknown encoding, or a rate that cannot be served.
    """

    encoding: Encoding = "pcm16"
    rate: int = 24_000  # Hz

    def __post_init__(self) -> None:
        if self.encoding not in _SAMPLE_BYTES:
            raise AudioError(
                f"unknown audio encoding {self.encoding!r}: use one of {sorted(_SAMPLE_BYTES)}"
            )
        if not LOWEST_RATE <= self.rate <= HIGHEST_RATE:
            raise AudioError(
                f"unsupported sample rate {self.rate} Hz: use {LOWEST_RATE} to {HIGHEST_RATE} Hz"
            )
        if self.encoding in ("pcmu", "pcma") and self.rate != _G711_RATE:
            raise AudioError(f"G.711 ({self.encoding}) is {_G711_RATE} Hz, not {self.rate} Hz")

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return _SAMPLE_BYTES[self.encoding]

    @property
    def bytes_per_second(self) -> int:
        """Bytes of one second."""
        return self.rate * self.sample_bytes


class Resampler:
    """Streaming mono resampling between two rates (soxr, high quality: 20 bits, linear phase)."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._soxr = (
            None
            if source_rate == target_rate
            else soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")
        )
        self.samples_in = 0
        self.samples_out = 0

    def push(self, samples: Samples, *, last: bool = False) -> Samples:
        """Samples `[m]` at the target rate that `samples` `[n]` complete, or all if `last`."""
        self.samples_in += samples.size
        out: Samples = samples
        if self._soxr is not None:
            out = self._soxr.resample_chunk(samples, last=last)
        self.samples_out += out.size
        return out


class InputConverter:
    """A client's audio to float32 at 16 kHz; one for each stream."""

    def __init__(self, source: AudioFormat, noise_level: int = 0) -> None:
        """`noise_level`: how strongly noise is suppressed, 0 (not) to `noise.STRONGEST`."""
        self.source = source
        self._filter = NoiseFilter(noise_level) if noise_level else None
        self._samples_out = 0
        self._resampler = Resampler(source.rate, TOKENIZER_RATE)
        self._closed = False

    @property
    def samples_in(self) -> int:
        """Samples taken so far, at the client's rate."""
        return self._resampler.samples_in

    @property
    def samples_out(self) -> int:
        """Samples returned so far, at 16 kHz."""
        return self._samples_out

    @property
    def pending(self) -> int:
        """Samples at 16 kHz that were pushed and are still held here."""
        return self.samples_in * TOKENIZER_RATE // self.source.rate - self.samples_out

    def push(self, data: bytes) -> Samples:
        """Float32 `[n]` at 16 kHz that `data` completes.

        Raises:
            AudioError: not whole samples; the converter is as it was and may be used on.
            StreamClosedError: it was flushed.
        """
        if self._closed:
            raise StreamClosedError("this audio stream has ended: open a new one")
        samples = self._resampler.push(decode(data, self.source))
        return self._count(samples if self._filter is None else self._filter.push(samples))

    def flush(self) -> Samples:
        """What is still held here; closes the converter.

        Raises:
            StreamClosedError: it was flushed before.
        """
        if self._closed:
            raise StreamClosedError("this audio stream has ended: open a new one")
        self._closed = True
        rest = self._resampler.push(np.empty(0, np.float32), last=True)
        if self._filter is not None:
            rest = np.concatenate((self._filter.push(rest), self._filter.flush()))
        return self._count(rest)

    def _count(self, samples: Samples) -> Samples:
        self._samples_out += samples.size
        return samples


class OutputConverter:
    """The vocoder's float32 mono to a client's bytes; one for each stream of an answer."""

    def __init__(self, target: AudioFormat, source_rate: int = VOCODER_RATE) -> None:
        self.target = target
        self._resampler = Resampler(source_rate, target.rate)
        self._closed = False

    @property
    def samples_out(self) -> int:
        """Samples returned so far, at the client's rate."""
        return self._resampler.samples_out

    def push(self, pcm: NDArray[np.generic]) -> bytes:
        """The client's bytes that `pcm` (float `[n]`, source rate) completes; peaks are clipped.

        Raises:
            AudioError: unusable samples; the converter is as it was and may be used on.
            StreamClosedError: it was flushed.
        """
        if self._closed:
            raise StreamClosedError("this audio stream has ended: open a new one")
        return encode(self._resampler.push(check_samples(pcm)), self.target)

    def flush(self) -> bytes:
        """What the resampler still holds; closes the converter.

        Raises:
            StreamClosedError: it was flushed before.
        """
        if self._closed:
            raise StreamClosedError("this audio stream has ended: open a new one")
        self._closed = True
        return encode(self._resampler.push(np.empty(0, np.float32), last=True), self.target)


def decode(data: bytes, format: AudioFormat) -> Samples:
    """Float32 `[n]` in [-1, 1) at the format's own rate.

    Raises:
        AudioError: not whole samples.
    """
    size = format.sample_bytes
    if len(data) % size:
        raise AudioError(
            f"{len(data)} bytes are not whole samples of {size} bytes "
            f"({format.encoding}): send audio cut between samples"
        )
    if format.encoding == "pcm16":
        return _from_int16(np.frombuffer(data, "<i2"))
    return _g711_table(format.encoding)[np.frombuffer(data, np.uint8)]


def encode(samples: Samples, format: AudioFormat) -> bytes:
    """`samples` `[n]` at the format's own rate as its bytes; peaks are clipped."""
    scaled = np.clip(np.rint(samples * _INT16_SCALE), -_INT16_SCALE, _INT16_SCALE - 1)
    if format.encoding == "pcm16":
        return scaled.astype("<i2").tobytes()
    linear = scaled.astype("=i2").tobytes()  # audioop reads the machine's own byte order
    to_g711 = _audioop().lin2ulaw if format.encoding == "pcmu" else _audioop().lin2alaw
    data: bytes = to_g711(linear, 2)
    return data


def _from_int16(samples: NDArray[np.int16]) -> Samples:
    return samples.astype(np.float32) / np.float32(_INT16_SCALE)


@cache
def _g711_table(encoding: Encoding) -> Samples:
    """What each of the 256 bytes means."""
    decode = _audioop().ulaw2lin if encoding == "pcmu" else _audioop().alaw2lin
    return _from_int16(np.frombuffer(decode(bytes(range(256)), 2), "=i2"))


@cache
def _audioop() -> ModuleType:
    """The standard library's G.711 (deprecated; there until Python 3.12)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import audioop

    return audioop
