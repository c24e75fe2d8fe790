"""Rows of speech of one length, for training: clips strung together, each at its own speed.

All rows of a batch are equally long, so no model here needs a padding mask; clips one after
another in a row teach the tokenizers to hear on after the first seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqaa.recipe.speech.augment import RATE, SPEEDS, change_speed, distort
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.speech.voices import Wave

MAX_LEAD, MAX_GAP = 0.6, 0.5  # seconds of silence before the first clip, and between clips
LONG_PAUSE, LONG_PAUSES = 2.0, 0.12  # seconds of one that is long, and how many are
TALKERS = 4  # clips that babble is made of


@dataclass(frozen=True)
class Placed:
    """A clip in a row: from sample `start`, played `speed` times as fast."""

    clip: Clip
    start: int
    speed: float


@dataclass(frozen=True)
class Row:
    """A training row: float32 16 kHz waves of one length, before and after the channel."""

    clean: Wave
    heard: Wave
    placed: tuple[Placed, ...]

    @property
    def phonemes(self) -> list[int]:
        """What is said in the whole row."""
        return [p for placed in self.placed for p in placed.clip.phonemes]


def make_row(clips: Sequence[Clip], samples: int, rng: np.random.Generator) -> Row:
    """Fill `samples` with random clips (at least one: it is sped up where it would not fit)."""
    clean = np.zeros(samples, np.float32)
    placed: list[Placed] = []
    position = _pause(MAX_LEAD, rng)
    for attempt in range(8):
        clip = clips[int(rng.integers(len(clips)))]
        speed = float(rng.uniform(*SPEEDS)) if rng.random() < 0.8 else 1.0
        wave = change_speed(clip.wave, speed)
        if position + len(wave) > samples:
            if placed or attempt < 7:
                continue
            position, wave = 0, wave[:samples]
        loud = float(rng.uniform(0.5, 1.0)) / (float(np.abs(wave).max()) + 1e-6)
        clean[position : position + len(wave)] = wave * np.float32(loud)
        placed.append(Placed(clip, position, speed))
        position += len(wave) + _pause(MAX_GAP, rng)
        if position > samples - RATE:
            break
    talkers = [clips[int(place)].wave for place in rng.integers(len(clips), size=TALKERS)]
    return Row(clean, distort(clean, rng, talkers), tuple(placed))


def _pause(longest: float, rng: np.random.Generator) -> int:
    """Samples of silence: `longest` seconds at the most, but now and then far more."""
    long = LONG_PAUSE if rng.random() < LONG_PAUSES else longest
    return int(rng.uniform(0, long) * RATE)


def make_batch(
    clips: Sequence[Clip], seconds: float, lengths: Sequence[int], rng: np.random.Generator
) -> list[Row]:
    """About `seconds` of rows, all of one of the `lengths` (in samples)."""
    samples = int(rng.choice(np.asarray(lengths)))
    count = max(1, round(seconds * RATE / samples))
    return [make_row(clips, samples, rng) for _ in range(count)]
