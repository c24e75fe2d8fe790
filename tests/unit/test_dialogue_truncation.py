"""What is given up of a conversation that is too long, turn by turn."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqaa.models.errors import PromptError
from aqaa.server.dialogue.truncation import AUTO, Truncation, TurnSize, truncated

ROOM = 1000
SPOKEN, WRITTEN = 100, 10


def exchanges(count: int, words: int = WRITTEN) -> list[TurnSize]:
    """Questions and answers, the last question still unanswered."""
    turn = TurnSize(SPOKEN, words, follows=False), TurnSize(SPOKEN, WRITTEN, follows=True)
    return [*turn * (count - 1), turn[0]]


def sizes_as_it_grows(how: Truncation, words: int = WRITTEN) -> list[int]:
    return [truncated(exchanges(count, words), ROOM, how).size for count in range(1, 41)]


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.8, 1.0])
def test_a_cut_leaves_the_wanted_part_of_the_room_and_not_a_turn_less(ratio: float) -> None:
    sizes = sizes_as_it_grows(Truncation(ratio), words=SPOKEN)  # no words: turns go whole
    cuts = [after for before, after in itertools.pairwise(sizes) if after <= before]
    assert max(sizes) <= ROOM
    assert cuts
    assert all(after <= max(ratio * ROOM, SPOKEN) for after in cuts)
    assert all(after > ratio * ROOM - 2 * SPOKEN for after in cuts)  # an exchange at a time


def test_the_higher_the_ratio_the_more_often_it_is_cut() -> None:
    def cuts(ratio: float) -> int:
        kept = [truncated(exchanges(n, SPOKEN), ROOM, Truncation(ratio)) for n in range(1, 41)]
        return len({one.dropped for one in kept})

    assert cuts(0.2) < cuts(0.5) < cuts(0.9)


def test_fewer_tokens_than_there_is_room_for_are_kept_where_that_is_asked() -> None:
    assert max(sizes_as_it_grows(Truncation(0.8, most=450))) <= 450
    assert max(sizes_as_it_grows(Truncation(0.8, most=10 * ROOM))) > 450  # no more than there is


def test_where_nothing_may_be_cut_a_long_conversation_is_refused() -> None:
    never = Truncation(retained=None)
    whole = truncated(exchanges(5), ROOM, never)
    assert (whole.dropped, whole.worded) == (0, 0)
    with pytest.raises(PromptError, match="100 ids over its room of 1000"):
        truncated(exchanges(6), ROOM, never)


def test_words_are_given_for_sound_before_any_turn_goes() -> None:
    kept = truncated(exchanges(8), ROOM, AUTO)
    assert (kept.dropped, kept.worded > 0) == (0, True)


def test_an_answer_that_begins_the_conversation_is_no_orphan() -> None:
    greeting = TurnSize(20, 20, follows=True)
    kept = truncated([greeting, *exchanges(6)], ROOM, AUTO)
    assert kept.dropped == 0


def test_a_calls_result_does_not_push_out_the_question_that_it_belongs_to() -> None:
    question, call, result = (TurnSize(n, n, n < 600) for n in (600, 40, 250))
    kept = truncated([*exchanges(2)[:2], question, call, result], ROOM, AUTO)
    assert kept.dropped == 2


def test_a_result_that_is_too_long_beside_its_question_is_kept_alone() -> None:
    question, call, result = (TurnSize(n, n, n < 600) for n in (600, 40, 500))
    assert truncated([question, call, result], ROOM, AUTO).dropped == 2


TURN = st.builds(
    lambda whole, part, follows: TurnSize(whole, whole * part // 4, follows),
    st.integers(4, 300),
    st.integers(1, 4),
    st.booleans(),
)


@given(st.lists(TURN, min_size=1, max_size=60), st.sampled_from([0.0, 0.3, 0.75, 1.0]))
def test_what_was_given_up_stays_given_up_and_the_size_is_the_sum_of_what_is_left(
    turns: list[TurnSize], ratio: float
) -> None:
    turns = [*turns, TurnSize(10, 10, follows=False)]
    before = (0, 0)
    for end in range(1, len(turns) + 1):
        try:
            kept = truncated(turns[:end], ROOM, Truncation(ratio))
        except PromptError:
            pytest.fail("every turn is shorter than the room")
        if turns[end - 1].follows:
            continue  # nobody asks for an answer there
        assert kept.dropped >= before[0]
        assert kept.worded >= before[1]
        before = (kept.dropped, kept.worded)
        words = sum(turn.shorter for turn in turns[kept.dropped : kept.worded])
        assert kept.size == words + sum(turn.whole for turn in turns[kept.worded : end]) <= ROOM
