"""What is done to the questions of the evaluation: fixed, the same for a seed."""

from __future__ import annotations

import functools

import numpy as np

from aqaa.recipe.speech.augment import in_room, laptop, level, mix
from aqaa.recipe.speech.corpus import held_out_plan
from aqaa.recipe.speech.noises import babble, coloured, kitchen, unit
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import Wave

NOISE_DB = 15.0
FAR_METRES, FAR_DECAY, FAR_QUIETER = 2.0, 0.4, 12.0  # metres, seconds to -60 dB, dB
BUSY_DB = 12.0  # of kitchens and cafes
GUESTS = 4  # one in so many clips of the held-out voices is a guest's


def noisy(wave: Wave, seed: int) -> Wave:
    """`wave` with coloured noise 15 dB below it."""
    return mix(wave, coloured(len(wave), np.random.default_rng(seed)), NOISE_DB)


def far(wave: Wave, seed: int) -> Wave:
    """By a laptop two metres away in a small room, with noise 15 dB below and 12 dB quieter."""
    rng = np.random.default_rng(seed)
    peak = 20 * np.log10(float(np.abs(wave).max()) + 1e-9)
    heard = in_room(wave, rng, FAR_METRES, FAR_DECAY)
    heard = laptop(mix(heard, coloured(len(wave), rng), NOISE_DB), rng)
    return level(heard, peak - FAR_QUIETER)


def in_kitchen(wave: Wave, seed: int) -> Wave:
    """`wave` with the noises of a kitchen 12 dB below it."""
    return mix(wave, kitchen(len(wave), np.random.default_rng(seed)), BUSY_DB)


def in_cafe(wave: Wave, seed: int) -> Wave:
    """`wave` with people who talk among dishes 12 dB below it; they are the held-out voices."""
    rng = np.random.default_rng(seed)
    other = babble(len(wave), _guests(), rng) + 0.5 * kitchen(len(wave), rng)
    return mix(wave, unit(other), BUSY_DB)


def in_kitchen_or_cafe(wave: Wave, seed: int) -> Wave:
    """A kitchen for even seeds, a cafe for odd ones."""
    return in_cafe(wave, seed) if seed % 2 else in_kitchen(wave, seed)


@functools.cache
def _guests() -> tuple[Wave, ...]:
    return tuple(hear(utterance) for utterance in held_out_plan()[::GUESTS])
