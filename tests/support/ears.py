"""The ear of the end-to-end tests: whisper tiny.en as it ships in a package, on the CPU."""

from __future__ import annotations

import re

import numpy as np
import soxr
from numpy.typing import NDArray

from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.evaluate.judges import whisper

WHISPER_RATE = 16_000


def hear(wave: NDArray[np.float32], rate: int) -> str:
    """What is said in mono sound, in lower case without punctuation."""
    wave16 = soxr.resample(np.asarray(wave, np.float32), rate, WHISPER_RATE)
    segments, _ = whisper().transcribe(wave16, language="en", beam_size=5, without_timestamps=True)
    text = " ".join(segment.text for segment in segments).lower()
    return " ".join(re.findall(r"[a-z0-9']+", text))


def mentions(text: str, words: list[str]) -> bool:
    """Whether any of the acceptable answers is in the text, as whole words; "7" is "seven"."""
    heard = f" {normalise(text)} "
    return any(f" {normalise(word)} " in heard for word in words)
