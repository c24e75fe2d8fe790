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
    position = int(rng.uniform(0, MAX_LEAD) * RATE)
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
        position += len(wave) + int(rng.uniform(0, MAX_GAP) * RATE)
        if position > samples - RATE:
            break
    babble = clips[int(rng.integers(len(clips)))].wave
    return Row(clean, distort(clean, rng, babble), tuple(placed))


def make_batch(
    clips: Sequence[Clip], seconds: float, lengths: Sequence[int], rng: np.random.Generator
) -> list[Row]:
    """About `seconds` of rows, all of one of the `lengths` (in samples)."""
    samples = int(rng.choice(np.asarray(lengths)))
    count = max(1, round(seconds * RATE / samples))
    return [make_row(clips, samples, rng) for _ in range(count)]
