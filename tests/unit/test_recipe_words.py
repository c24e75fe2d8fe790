"""What the evaluation says of the user's words."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest

from aqaa.recipe.domain.tools import COFFEE, Call
from aqaa.recipe.evaluate.household import Spoken
from aqaa.recipe.evaluate.pipeline import Pipeline
from aqaa.recipe.evaluate.words import error_row, slots_row
from aqaa.recipe.speech.voices import Wave

SILENCE = np.zeros(10, np.float32)


class Writes:
    """Stands for a pipeline: every sound has these words, in turn."""

    def __init__(self, *heard: str) -> None:
        self._heard = iter(heard)

    def words(self, wave: Wave) -> str:
        return next(self._heard)


def writes(*heard: str) -> Pipeline:
    return cast(Pipeline, Writes(*heard))


def test_the_error_rate_is_over_all_words_however_they_are_spelt() -> None:
    said = [("What is 5 plus 4?", SILENCE), ("Hello!", SILENCE)]

    row = error_row(writes("what is five plus for", "hello"), "words", said, 0.1)

    assert (row.got, row.n, row.reached) == (pytest.approx(1 / 6), 2, False)


def test_of_an_order_the_words_of_its_slots_are_looked_for() -> None:
    wanted = Call(COFFEE.name, (("coffeeDrink", "iced coffee"), ("milkAmount", "soy milk")))
    orders = [Spoken("one.flac", SILENCE, (COFFEE,), wanted)]

    row = slots_row(writes("an iced tea with soy milk please"), orders)

    assert row.got == pytest.approx(3 / 4)
