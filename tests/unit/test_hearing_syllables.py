"""Counting syllables by loudness alone."""

import numpy as np
import pytest

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.hearing.syllables import syllables


def said(count: int, level: float = 0.3) -> np.ndarray:
    """So many vowels of 150 ms, each of which swells and fades, in a quiet room."""
    place = np.arange(round(0.15 * TOKENIZER_RATE))
    vowel = np.sin(2 * np.pi * 500 * place / TOKENIZER_RATE) * np.hanning(place.size)
    room = 1e-4 * np.random.default_rng(0).standard_normal(place.size * (count + 2))
    room[place.size : place.size * (count + 1)] += level * np.tile(vowel, count)
    return room.astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_vowel_is_a_syllable(count: int) -> None:
    assert syllables(said(count)) == count


def test_how_loud_they_are_does_not_matter() -> None:
    assert syllables(said(3, level=0.01)) == syllables(said(3, level=0.9)) == 3


def test_a_syllable_counts_once_it_has_begun_to_fade() -> None:
    whole = said(2)
    begun = round((0.15 + 0.15 + 0.07) * TOKENIZER_RATE)  # the second is at its loudest
    assert syllables(whole[:begun]) == 1


def test_a_tone_is_drawn_out_and_has_no_second() -> None:
    place = np.arange(TOKENIZER_RATE)
    tone = np.pad(0.3 * np.sin(2 * np.pi * 500 * place / TOKENIZER_RATE), 3200)
    assert syllables(tone.astype(np.float32)) == 1


def test_hiss_and_hum_are_no_vowels() -> None:
    place = np.arange(TOKENIZER_RATE)
    swells = 1 + np.sin(2 * np.pi * 4 * place / TOKENIZER_RATE)
    hum = 0.3 * swells * np.sin(2 * np.pi * 60 * place / TOKENIZER_RATE)
    loud = said(1)
    hum[: loud.size] += loud
    assert syllables(hum.astype(np.float32)) == 1


def test_silence_and_next_to_nothing_have_none() -> None:
    assert syllables(np.zeros(0, np.float32)) == 0
    assert syllables(np.zeros(TOKENIZER_RATE, np.float32)) == 0
