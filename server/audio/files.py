"""Reads recorded questions: wav, flac, ogg/opus, mp3 and whatever else libsndfile knows."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError
from aqaa.server.audio.wire import HIGHEST_RATE, LOWEST_RATE, Resampler
from aqaa.tokenizers.stream import Samples, check_samples

# A question is seconds long; an hour at 16 kHz is 230 MB of float32 and a bound on memory.
MAX_SECONDS = 3600

_UNKNOWN_SIZE = (0, 0xFFFFFFFF)  # what programs write that stream a wav to a pipe


def read_audio(source: Path | str | bytes) -> Samples:
    """The recording at a path, or in a file's bytes, as float32 `[n]` mono 16 kHz.

    Channels are averaged.

    Raises:
        AudioError: no such file, not audio, truncated, empty, longer than an hour, or of an
            unusable rate or content; the message names the file.
    """
    name = "the audio" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError(f"no such audio file: {name}")
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as data:
            _check_wav_is_whole(data, name)
            samples, rate = _read(data, name)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{name} cannot be read as audio: {error}") from error
    return Resampler(rate, TOKENIZER_RATE).push(samples, last=True)


def _read(data: BinaryIO, name: str) -> tuple[Samples, int]:
    with soundfile.SoundFile(data) as file:
        rate: int = file.samplerate
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise AudioError(f"{name}: unsupported sample rate {rate} Hz")
        if not file.frames:
            raise AudioError(f"{name} holds no audio")
        if file.frames > MAX_SECONDS * rate:
            raise AudioError(
                f"{name} is {file.frames / rate / 60:.0f} minutes long; at most "
                f"{MAX_SECONDS // 60} are taken: cut out the question"
            )
        frames = file.read(dtype="float32", always_2d=True)
        if len(frames) < file.frames and file.format != "MP3":  # an mp3 only estimates its length
            raise AudioError(f"{name} is truncated: {len(frames)} of {file.frames} samples")
    try:
        return check_samples(frames.mean(axis=1, dtype=np.float32)), rate
    except AudioError as error:
        raise AudioError(f"{name}: {error}") from error


def _check_wav_is_whole(data: BinaryIO, name: str) -> None:
    """libsndfile reads a truncated wav without a word: compare its data chunk with the file."""
    head = data.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        while len(chunk := data.read(8)) == 8:
            kind, size = struct.unpack("<4sI", chunk)
            start = data.tell()
            if kind == b"data":
                present = data.seek(0, io.SEEK_END) - start
                if size not in _UNKNOWN_SIZE and present < size:
                    raise AudioError(
                        f"{name} is truncated: {present} of {size} bytes of audio are there"
                    )
                break
            data.seek(start + size + size % 2)
    data.seek(0)
