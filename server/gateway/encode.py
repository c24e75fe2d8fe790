"""A spoken answer as a file: wav, flac, mp3 or opus, by libsndfile."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from aqaa.models.errors import InputError

RATE = 24_000
# container: (libsndfile's format and subtype, media type)
CONTAINERS = {
    "wav": ("WAV", "PCM_16", "audio/wav"),
    "flac": ("FLAC", "PCM_16", "audio/flac"),
    "mp3": ("MP3", "MPEG_LAYER_III", "audio/mpeg"),
    "opus": ("OGG", "OPUS", "audio/ogg"),
}
RAW = "pcm16"
SILENCE = np.zeros(RATE // 100, np.int16)  # of an answer without sound: no file has no bytes


def check_container(name: str) -> str:
    """`name`, if an answer can be sent so.

    Raises:
        InputError: it cannot; the message lists the names that can.
    """
    if name not in CONTAINERS and name != RAW:
        known = ", ".join([*CONTAINERS, RAW])
        raise InputError(f"audio format {name!r} is not made here; ask for one of {known}")
    return name


def encode(pcm: bytes, container: str) -> bytes:
    """pcm16 at 24 kHz as a file of this container; `pcm16` stays as it is, nothing is 10 ms."""
    if container == RAW:
        return pcm
    kind, subtype, _ = CONTAINERS[container]
    file = io.BytesIO()
    samples = np.frombuffer(pcm, "<i2") if pcm else SILENCE
    soundfile.write(file, samples, RATE, format=kind, subtype=subtype)
    return file.getvalue()


def media_type(container: str) -> str:
    """What to say that the file is."""
    return f"audio/pcm;rate={RATE}" if container == RAW else CONTAINERS[container][2]
