"""From turns to the prompt."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import groups, tiny_text

from aqaa.models.errors import PromptError
from aqaa.server.dialogue.prompt import (
    AssistantTurn,
    PromptBuilder,
    SystemTurn,
    Turn,
    UserTurn,
)

TEXT, TOKENS = tiny_text()
BOT, EOT, START, END = TOKENS.bot, TOKENS.eot, TOKENS.audio_start, TOKENS.audio_end
HUMAN = [BOT, *TEXT.encode("human\n")]
ASSISTANT = [BOT, *TEXT.encode("assistant\n")]


def builder(budget: int = 10_000) -> PromptBuilder:
    return PromptBuilder(TOKENS, TEXT, budget=budget)


def spoken(count: int, words: str = "") -> UserTurn:
    return UserTurn((tuple(groups(TOKENS, count)),), words)


def answered(count: int) -> AssistantTurn:
    assert START is not None and END is not None  # noqa: PT018
    words = TEXT.encode("I am well.")
    return AssistantTurn((START, *words, *groups(TOKENS, count), END, EOT))


def after_newline(text: str) -> list[int]:
    return TEXT.encode("\n" + text)[len(TEXT.encode("\n")) :]


def test_a_spoken_question_stands_in_the_published_template() -> None:
    audio = groups(TOKENS, 3)
    prompt = builder().finished([SystemTurn("Hello"), UserTurn((tuple(audio),))])
    system = [BOT, *TEXT.encode("system\n"), *after_newline("Hello"), EOT]
    assert prompt == [TOKENS.bos, *system, *HUMAN, *audio, EOT, *ASSISTANT]


def test_text_has_no_dummy_prefix_after_the_role() -> None:
    prompt = builder().finished([UserTurn(("Hello",))])
    assert TEXT.decode(prompt) == "human\nHelloassistant\n".replace("assistant", " assistant")


def test_an_answer_keeps_its_text_audio_and_markers_as_they_came() -> None:
    turns: list[Turn] = [spoken(1), answered(4), spoken(2)]
    prompt = builder().finished(turns)
    answer = turns[1]
    assert isinstance(answer, AssistantTurn)
    emitted = [*ASSISTANT, *answer.answer]
    at = prompt.index(ASSISTANT[0], len(HUMAN) + 5)
    assert prompt[at : at + len(emitted)] == emitted
    assert prompt.count(EOT) == 3


def test_without_bos_a_prompt_begins_with_its_first_turn() -> None:
    bare = PromptBuilder(TOKENS, TEXT, budget=1000, bos_first=False)
    assert bare.finished([spoken(1)])[0] == BOT


def test_audio_ids_of_a_prompt_are_counted() -> None:
    prompts = builder()
    assert prompts.kinds(prompts.finished([UserTurn(("Hello",)), spoken(7)]))[1] == 35


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(1, 40), st.integers(100, 700))
def test_a_prompt_grows_only_at_its_end_while_the_user_speaks(
    history: list[int], length: int, budget: int
) -> None:
    turns: list[Turn] = [SystemTurn("Hello")]
    for count in history:
        turns += [spoken(count, "words"), answered(count)]
    prompts = builder(budget)
    try:
        final = prompts.finished([*turns, spoken(length)])
    except PromptError:
        return  # that turn alone is too long
    before: list[int] = []
    for count in range(length + 1):
        now = prompts.unfinished([*turns, spoken(count)])
        if now[: len(before)] != before:  # the budget was stepped over: history was given up
            assert len(now) <= len(before)
        before = now
    assert final[: len(before)] == before
    assert len(final) <= budget


def conversation(exchanges: int) -> list[Turn]:
    turns: list[Turn] = [SystemTurn("Hello")]
    for _ in range(exchanges):
        turns += [spoken(10, "how are you"), answered(10)]
    return [*turns, spoken(4)]


def test_a_full_budget_first_costs_old_turns_their_audio_and_keeps_their_words() -> None:
    turns = conversation(6)
    whole = builder().finished(turns)
    prompt = builder(len(whole) - 60).finished(turns)
    first = prompt.index(BOT, prompt.index(EOT))
    words = [*HUMAN, *after_newline("how are you"), EOT, *ASSISTANT, *TEXT.encode("I am well.")]
    assert prompt[first : first + len(words)] == words
    assert prompt.count(EOT) == whole.count(EOT)  # no turn is gone
    assert prompt[-200:] == whole[-200:]


def test_then_the_oldest_turns_go_whole_and_the_instructions_stay() -> None:
    turns = conversation(12)
    prompt = builder(400).finished(turns)
    whole = builder().finished(turns)
    system = whole[: whole.index(EOT) + 1]
    assert prompt[: len(system)] == system
    assert prompt[len(system) : len(system) + len(HUMAN)] == HUMAN  # a question, not an answer
    assert prompt.count(EOT) < whole.count(EOT)
    assert len(prompt) <= 400


def test_what_is_given_up_stays_the_same_for_some_turns() -> None:
    prompts = builder(1200)
    lengths = range(8, 30)
    kept = [prompts.finished(conversation(n)) for n in lengths]
    breaks = sum(
        now[: len(before) - 60] != before[: len(before) - 60]
        for before, now in itertools.pairwise(kept)
    )
    assert breaks <= len(lengths) // 2


@given(st.lists(st.integers(0, 12), max_size=12), st.integers(60, 600))
def test_no_budget_ever_cuts_inside_a_group(history: list[int], budget: int) -> None:
    turns: list[Turn] = []
    for count in history:
        turns += [spoken(count, "words" * (count % 2)), answered(count)]
    try:
        prompt = builder(budget).finished([*turns, spoken(3)])
    except PromptError:
        return
    run: list[int] = []
    for token in [*prompt, EOT]:
        if token >= TOKENS.audio_offset:
            run.append(token)
        else:
            assert run == groups(TOKENS, len(run) // 5)
            run = []


def test_a_turn_that_alone_is_too_long_is_refused() -> None:
    with pytest.raises(PromptError, match="only its last turn"):
        builder(100).finished([spoken(2), spoken(40)])


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(PromptError, match="empty"):
        builder().finished([])


@pytest.mark.parametrize(
    "ids", [groups(TOKENS, 2)[:7], [5] * 5, [TOKENS.audio_end_id] * 5], ids=str
)
def test_audio_that_is_not_whole_groups_of_audio_ids_is_refused(ids: list[int]) -> None:
    with pytest.raises(PromptError, match="whole groups"):
        builder().finished([UserTurn((tuple(ids),))])
