"""When sound is no question: one rule and its words for commits, items and recordings."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import NoSpeechError
from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.compute.model import Work
from aqaa.server.hearing.vad import CALL_SAMPLES, FRAME_SAMPLES, SPEECH_PROBABILITY

Samples = NDArray[np.float32]


class SpeechProbability(Protocol):
    """A VAD stream (`vad.VadStream`)."""

    def push(self, samples: Samples, /) -> Work[list[float]]:
        """The probability of speech in each frame of float32 [512 n] at 16 kHz."""


def why_no_question(seconds: float, *, spoken: bool) -> str | None:
    """Why so much sound is no question, in words; None if somebody speaks in it (`spoken`)."""
    if seconds < GROUP_SECONDS:
        return f"{seconds:.2f} s of sound are too short to hold a word"
    if not spoken:
        return f"nobody speaks in these {seconds:.1f} s of sound: is the microphone muted?"
    return None


def check_speech(vad: SpeechProbability, samples: Samples) -> Work[None]:
    """Refuse a whole recording, float32 [n] at 16 kHz, that is no question; `vad`: a new stream.

    Raises:
        NoSpeechError: it is none.
    """
    why = why_no_question(
        samples.size / TOKENIZER_RATE, spoken=(yield from _somebody_speaks(vad, samples))
    )
    if why is not None:
        raise NoSpeechError(why)


def _somebody_speaks(vad: SpeechProbability, samples: Samples) -> Work[bool]:
    whole = samples[: samples.size // FRAME_SAMPLES * FRAME_SAMPLES]
    for at in range(0, whole.size, CALL_SAMPLES):
        if max((yield from vad.push(whole[at : at + CALL_SAMPLES]))) >= SPEECH_PROBABILITY:
            return True
    return False
