"""The bundle's voices, all made of one teacher's speech, word for word at the same times.

The decoder only ever says the teacher's tokens, whatever voice is asked for. So a voice is learned
from the teacher's own sentences, their pitch and formants moved by WORLD: every frame then has the
tokens that belong to it. (Another speaker's recordings, warped to the teacher's timing, were tried
first: not intelligible, see the log.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from aqaa.models.bundle import VOCODER_RATE
from aqaa.recipe.decoder.text import HAPPY_VOICE, OTHER_VOICE, SAD_VOICE
from aqaa.recipe.speech.pitch import f0_track
from aqaa.recipe.speech.voices import TEACHER, Wave
from aqaa.recipe.vocoder.settings import HOP

PERIOD = 0.005  # seconds; WORLD's own frame period
SILENT_PITCH = 120.0  # Hz, the middle of a track without voice


@dataclass(frozen=True)
class Voicing:
    """What is done to the teacher's speech.

    Attributes:
        description: for whoever chooses among the bundle's voices.
        pitch: factor of the middle of the pitch.
        range: factor of its swing about the middle, in octaves.
        formants: factor of the formants' frequencies; a shorter throat has higher ones.
    """

    description: str
    pitch: float = 1.0
    range: float = 1.0
    formants: float = 1.0


VOICES = {
    TEACHER: Voicing("Male, calm; taught by the piper voice en_US-joe-medium."),
    OTHER_VOICE: Voicing("Female: joe's speech with pitch and formants raised.", 1.9, 1.2, 1.15),
    HAPPY_VOICE: Voicing("joe, happy: higher and livelier.", 1.3, 1.25),
    SAD_VOICE: Voicing("joe, sad: lower and flatter.", 0.82, 0.5),
}


def voiced(wave: Wave, names: list[str]) -> dict[str, Wave]:
    """`wave` (22 050 Hz) in each voice of `names`, as long as it was."""
    import pyworld

    double = wave.astype(np.float64)
    track = f0_track(torch.from_numpy(wave), HOP).numpy()
    times = np.arange(0, len(wave) / VOCODER_RATE, PERIOD)
    nearest = np.minimum((times * VOCODER_RATE / HOP).astype(int), len(track) - 1)
    pitch = track[nearest].astype(np.float64)
    envelope = pyworld.cheaptrick(double, pitch, times, VOCODER_RATE)
    breath = pyworld.d4c(double, pitch, times, VOCODER_RATE)
    heard = pitch > 0
    middle = float(np.exp(np.log(pitch[heard]).mean())) if heard.any() else SILENT_PITCH
    made = {}
    for name in names:
        how = VOICES[name]
        moved = np.zeros_like(pitch)
        moved[heard] = middle * how.pitch * (pitch[heard] / middle) ** how.range
        parts = np.exp(_raise(np.log(envelope), how.formants)), _raise(breath, how.formants)
        spoken = pyworld.synthesize(moved, *parts, VOCODER_RATE)
        made[name] = np.asarray(spoken[: len(wave)], np.float32)
    return made


def _raise(spectra: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """`spectra` [T, F] with what was at a frequency at `factor` times it."""
    bins = np.arange(spectra.shape[1])
    return np.stack([np.interp(bins / factor, bins, row) for row in spectra])
