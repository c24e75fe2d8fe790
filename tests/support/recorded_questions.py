"""nano's example questions, as they are and as somebody asks them who hesitates."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from aqaa.clients.client import WIRE_RATE
from aqaa.models.bundle import nano_path
from aqaa.server.audio.files import read_audio

FRAME_SECONDS = 0.01
QUIET_FRAMES = 3  # a pause is put into the quietest place of this length
APART_SECONDS = 0.5  # between pauses, and from the speech's beginning and end
LEAST_PAUSE, LONGEST_PAUSE = 0.15, 0.6  # seconds

# Where each question's first word ends, in seconds, as its spectrogram shows it, to 20 ms or so:
# "What", "Can", "Please", "Tell", "What", "I".
FIRST_WORD_ENDS = (0.21, 0.26, 0.44, 0.26, 0.27, 0.18)

Sound = NDArray[np.float32]


def questions() -> list[Sound]:
    """The examples, mono float32 [n] at the wire rate."""
    files = sorted((nano_path() / "examples").glob("*.flac"))
    return [read_audio(file, WIRE_RATE) for file in files]


def hesitating(wave: Sound, pauses: int, choice: random.Random, rate: int = WIRE_RATE) -> Sound:
    """The question with up to so many pauses, each of 150 to 600 ms, at its quietest places.

    Args:
        wave: mono float32 [n] at `rate` Hz.
        pauses: as many as have room at least `APART_SECONDS` from each other and from both ends.
        choice: draws their lengths.
        rate: Hz.
    """
    frame = round(rate * FRAME_SECONDS)
    pieces, begin = [], 0
    for place in _quiet_places(wave, pauses, frame):
        silence = np.zeros(round(rate * choice.uniform(LEAST_PAUSE, LONGEST_PAUSE)), np.float32)
        pieces += [wave[begin : place * frame], silence]
        begin = place * frame
    return np.concatenate([*pieces, wave[begin:]])


def _quiet_places(wave: Sound, most: int, frame: int) -> list[int]:
    """The frames before which the sound is quietest, in order."""
    count = wave.size // frame
    power = np.square(wave[: count * frame].reshape(count, frame), dtype=np.float64).mean(axis=1)
    around = np.convolve(power, np.ones(QUIET_FRAMES), mode="same")
    apart = round(APART_SECONDS / FRAME_SECONDS)
    places: list[int] = []
    for place in np.argsort(around[apart : count - apart], kind="stable") + apart:
        if len(places) == most:
            break
        if all(abs(place - other) >= apart for other in places):
            places.append(int(place))
    return sorted(places)
