"""The one reader of sound files: libsndfile's kinds, and by FFmpeg what browsers and phones send.

A wav or flac that was written to a pipe has a placeholder for its length: what is there is read.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError
from aqaa.server.audio.containers import check_rate, read_with_ffmpeg
from aqaa.server.audio.wire import Resampler
from aqaa.tokenizers.stream import Samples, check_samples

# A question is seconds long; an hour at 16 kHz is 230 MB of float32 and a bound on memory.
MAX_SECONDS = 3600.0
BLOCK_SECONDS = 1  # decoded at once and mixed down at once: 1.5 MB of float32

# Programs that stream a wav to a pipe write 0, 2e9, 0x7FFFF000 or 0xFFFFFFFF as its size. Nobody
# sends us a file of this size, so a larger one is such a placeholder.
_LARGEST_SIZE = 1 << 30
_LARGEST_FRAMES = 1 << 40  # libsndfile's answer for a flac that does not say is 2**63 - 1


class _InMemory(io.BytesIO):
    """A file's bytes; libsndfile seeks to before the beginning of one that is broken."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of any file, but stays at the beginning."""
        return super().seek(max(0, offset) if whence == io.SEEK_SET else offset, whence)


def read_audio(
    source: Path | str | bytes, rate: int = TOKENIZER_RATE, *, max_seconds: float = MAX_SECONDS
) -> Samples:
    """The recording at a path, or in a file's bytes, as float32 `[n]` mono at `rate` Hz.

    Raises:
        AudioError: see `decode_audio`.
    """
    samples, native_rate = decode_audio(source, max_seconds=max_seconds)
    return Resampler(native_rate, rate).push(samples, last=True)


def decode_audio(
    source: Path | str | bytes, *, max_seconds: float = MAX_SECONDS
) -> tuple[Samples, int]:
    """The recording as float32 `[n]` mono, channels averaged, and its own rate in Hz.

    One that is too long is refused before any of it is decoded, so that a small file of silence
    cannot fill the memory.

    Raises:
        AudioError: no such file, not audio, truncated, empty, longer than `max_seconds`, or of an
            unusable rate, number of channels or content; the message names the file.
    """
    name = "the audio" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"no such audio file: {name}")
    try:
        with _InMemory(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
            data = _with_its_size(file, name)
            try:
                return _read(data, name, max_seconds)
            except soundfile.LibsndfileError:
                return _read_with_ffmpeg(data, name, max_seconds)
    except OSError as error:
        raise AudioError(f"{name} cannot be read: {error.strerror}") from error


def _read(data: BinaryIO, name: str, max_seconds: float) -> tuple[Samples, int]:
    with soundfile.SoundFile(data) as file, np.errstate(over="ignore", invalid="ignore"):
        rate: int = file.samplerate
        check_rate(name, rate, file.channels)
        stated = file.frames if file.frames < _LARGEST_FRAMES else 0
        if stated > max_seconds * rate:
            raise AudioError(
                f"{name} is {_duration(stated / rate)} long; at most "
                f"{_duration(max_seconds)} are taken: cut out the question"
            )
        # Of these libsndfile reads as much as a head states, which may lie, and no further than to
        # the first frame that is broken.
        if file.format == "FLAC" or file.subtype.startswith("MPEG"):
            samples, _ = _read_with_ffmpeg(data, name, max_seconds)
        elif stated:
            samples = _mixed_down(file)
        else:
            raise AudioError(f"{name} holds no audio")
        # What MPEG compressed, in an mp3 or a wav, only estimates its length.
        if len(samples) < stated and not file.subtype.startswith("MPEG"):
            raise AudioError(f"{name} is truncated: {len(samples)} of {stated} samples")
    try:
        return check_samples(samples), rate
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error


def _read_with_ffmpeg(data: BinaryIO, name: str, max_seconds: float) -> tuple[Samples, int]:
    data.seek(0)
    return read_with_ffmpeg(data, name, max_seconds=max_seconds)


def _mixed_down(file: soundfile.SoundFile) -> Samples:
    """All samples of an open file, channels averaged, decoded block by block."""
    most = file.frames  # what the header promised and the caller has checked
    blocks: list[Samples] = []
    count = 0
    while count < most:
        block = file.read(
            min(BLOCK_SECONDS * file.samplerate, most - count), dtype="float32", always_2d=True
        )
        if not len(block):
            break
        blocks.append(block.mean(axis=1, dtype=np.float32))
        count += len(block)
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _truncated(name: str, present: int, size: int) -> AudioError:
    return AudioError(f"{name} is truncated: {present} of {size} bytes of audio are there")


def _with_its_size(data: BinaryIO, name: str) -> BinaryIO:
    """The file; of a wav, RF64 or W64 whose size is a placeholder, a copy that says what is there.

    Raises:
        AudioError: a wav is truncated, which libsndfile would read without a word.
    """
    head = data.read(12)
    if head[:4] == b"riff" and data.read(28)[12:16] == b"wave":
        return _w64_with_its_size(data, name)
    if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:] == b"WAVE":
        large: int | None = None  # the size of an RF64's audio, which stands in a chunk before it
        while len(chunk := data.read(8)) == 8:
            kind, size = struct.unpack("<4sI", chunk)
            start = data.tell()
            if kind == b"ds64" and len(sizes := data.read(16)) == 16:
                large = struct.unpack("<QQ", sizes)[1]
            if kind == b"data":
                size = size if large is None else large
                present = data.seek(0, io.SEEK_END) - start
                if present < size < _LARGEST_SIZE:
                    raise _truncated(name, present, size)
                if present and (size == 0 or size > present):
                    return _resized(data, start, present)
                break
            data.seek(start + size + size % 2)
    data.seek(0)
    return data


def _w64_with_its_size(data: BinaryIO, name: str) -> BinaryIO:
    """As `_with_its_size`, of a Wave64: its names have 16 bytes, its sizes 8 and count the head."""
    while len(chunk := data.read(24)) == 24:
        start, size = data.tell(), struct.unpack("<Q", chunk[16:])[0] - 24
        present = data.seek(0, io.SEEK_END) - start
        if chunk[:4] == b"data" and present < size < _LARGEST_SIZE:
            raise _truncated(name, present, size)
        if chunk[:4] == b"data" and not 0 < size <= present:
            data.seek(0)
            copy = _InMemory(data.read())
            copy.seek(16)
            copy.write(struct.pack("<Q", start + present))
            copy.seek(start - 8)
            copy.write(struct.pack("<Q", 24 + present))
            data = copy
        if chunk[:4] == b"data" or not 0 <= size <= present:
            break
        data.seek(start + size + -size % 8)
    data.seek(0)
    return data


def _resized(data: BinaryIO, start: int, present: int) -> BinaryIO:
    """A copy of a wav whose last chunk begins at `start` and holds all that is `present`.

    Of an RF64 it is a wav, in which the chunk of sizes is junk.
    """
    data.seek(0)
    copy = _InMemory(data.read())
    copy.seek(12)
    if copy.read(4) == b"ds64":
        copy.seek(12)
        copy.write(b"JUNK")
    copy.seek(0)
    copy.write(struct.pack("<4sI", b"RIFF", min(start - 8 + present, 0xFFFFFFFF)))
    copy.seek(start - 4)
    copy.write(struct.pack("<I", present))
    copy.seek(0)
    return copy
