"""What is written down of the user's words: error rates of held-out voices, near and far.

The words are those of the server's own way, the tokenizer's windows and the transcriber's stream.
Nobody has written down what people ordered, but the words of an order's slots are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.evaluate.conditions import far
from aqaa.recipe.evaluate.household import Spoken, commands, people_coffee, people_commands
from aqaa.recipe.evaluate.judges import word_errors
from aqaa.recipe.evaluate.pipeline import Pipeline
from aqaa.recipe.evaluate.questions import held_out_questions
from aqaa.recipe.evaluate.report import Row
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import HELD_OUT, Wave

QUESTIONS = 60
Said = tuple[str, Wave]


def words_rows(pipeline: Pipeline, people: Path | None, tick: Callable[[str], None]) -> list[Row]:
    """The table's rows about words; none for a bundle without a transcriber.

    `people` is the folder of recordings; without it their rows are left out.
    """
    if pipeline.transcriber is None:
        return []
    tick("words")
    talks = held_out_questions(load_domain())
    plain = [t.turns[0].said for t in talks if all(turn.style == "plain" for turn in t.turns)]
    questions = [
        (text, hear(Utterance(text, HELD_OUT[number % len(HELD_OUT)])))
        for number, text in enumerate(plain[:QUESTIONS])
    ]
    ordered = [(command.name, command.wave) for command in commands()]
    rows = [
        error_row(pipeline, "transcripts, held-out voices: WER of questions", questions, 0.1),
        error_row(pipeline, "the same, far", at_a_distance(questions), 0.1),
        error_row(pipeline, "transcripts, held-out voices: WER of commands", ordered, 0.1),
        error_row(pipeline, "the same, far", at_a_distance(ordered), 0.1),
    ]
    if people is not None:
        said = [(command.name, command.wave) for command in people_commands(people)]
        rows.append(error_row(pipeline, "people's household commands: WER", said, 0.2))
        rows.append(slots_row(pipeline, list(people_coffee(people))))
    return rows


def at_a_distance(said: Iterable[Said]) -> list[Said]:
    """The same from two metres away."""
    return [(text, far(wave, number)) for number, (text, wave) in enumerate(said)]


def error_row(pipeline: Pipeline, what: str, said: list[Said], asked: float) -> Row:
    """The word error rate over all of `said`."""
    errors, words = np.sum([word_errors(text, pipeline.words(wave)) for text, wave in said], axis=0)
    return Row(what, float(errors / words), "<=", asked, len(said), percent=True)


def slots_row(pipeline: Pipeline, orders: list[Spoken]) -> Row:
    """The share of the words of the orders' slots that were written down."""
    found = words = 0
    for order in orders:
        assert order.call is not None
        wanted = normalise(" ".join(str(value) for _, value in order.call.arguments)).split()
        heard = normalise(pipeline.words(order.wave)).split()
        found += sum(min(wanted.count(word), heard.count(word)) for word in {*wanted})
        words += len(wanted)
    what = "people's orders: their slots' words that are written down"
    return Row(what, found / words, ">=", 0.8, len(orders), percent=True)
