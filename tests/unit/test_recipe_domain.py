"""The domain as data: enough of it, answerable, and nothing of the evaluation in it."""

from string import Formatter

import pytest

from aqaa.recipe.domain.load import Domain, load_domain
from aqaa.recipe.domain.numbers import is_right, normalise, number_words
from aqaa.recipe.evaluate.questions import held_out_questions

SUMS = {"plus", "minus", "times"}


@pytest.fixture(scope="module")
def domain() -> Domain:
    return load_domain()


def test_the_domain_holds_at_least_two_hundred_facts_besides_the_sums(domain: Domain) -> None:
    assert len({fact.answer for fact in domain.facts if fact.intent not in SUMS}) >= 200


def test_every_answer_is_judged_right_by_its_own_words(domain: Domain) -> None:
    turns = [turn for dialogue in domain.dialogues for turn in dialogue.turns]
    wrong = [fact for fact in [*domain.facts, *turns] if not is_right(fact.answer, fact.right)]
    assert wrong == []


def test_no_slot_is_left_open(domain: Domain) -> None:
    said = [*domain.questions(), *domain.answers()]
    assert [text for text in said if any(field for _, field, _, _ in Formatter().parse(text))] == []


def test_a_question_without_context_has_one_answer(domain: Domain) -> None:
    answers: dict[str, set[str]] = {}
    for fact in domain.facts:
        for ask in (*fact.ask, *fact.said):
            answers.setdefault(normalise(ask), set()).add(fact.answer)
    assert {ask: found for ask, found in answers.items() if len(found) > 1} == {}


def test_nothing_that_the_evaluation_asks_is_in_the_training_set(domain: Domain) -> None:
    said = (*domain.questions(), *domain.variants(), *domain.outside)
    trained = {normalise(text) for text in said}
    asked = {normalise(turn.said) for talk in held_out_questions(domain) for turn in talk.turns}
    assert asked
    assert asked & trained == set()


def test_the_evaluation_asks_about_every_intent_and_control(domain: Domain) -> None:
    talks = held_out_questions(domain)
    asked = {turn.intent for talk in talks for turn in talk.turns}
    intents = {fact.intent for fact in domain.facts}
    intents |= {turn.intent for dialogue in domain.dialogues for turn in dialogue.turns}
    assert intents | {control.name for control in domain.controls} <= asked


def test_numbers_are_spoken_in_words() -> None:
    assert [number_words(n) for n in (0, 13, 21, 40, 100, 365)] == [
        "zero", "thirteen", "twenty one", "forty", "one hundred", "three hundred sixty five",
    ]  # fmt: skip


def test_digits_and_words_and_spellings_compare_equal() -> None:
    assert normalise("It's 4 + 21, the COLOR gray!") == normalise(
        "its four plus twenty-one the colour grey"
    )


def test_a_right_word_must_be_heard_whole() -> None:
    assert not is_right("The answer is sixteen.", (("six",),))
    assert is_right("The answer is 6.", (("six",),))
