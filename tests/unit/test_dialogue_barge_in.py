"""What a barge-in leaves of an answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tiny_text import groups, tiny_text

from aqaa.models.groups import GROUP_TOKENS
from aqaa.server.dialogue.answer_parser import AnswerParser, AudioGroup, Malformed, TextDelta
from aqaa.server.dialogue.barge_in import cut_answer, heard_ids

TEXT, TOKENS = tiny_text()
START, END, EOT = TOKENS.audio_start, TOKENS.audio_end, TOKENS.eot
assert START is not None and END is not None  # noqa: PT018

SENTENCE = "Hello there, how are you? I am well. The weather is fine today."


def woven(text: str, count: int, first: int = 0) -> list[int]:
    words, audio = TEXT.encode(text), groups(TOKENS, count, first)
    ids: list[int] = []
    while words or audio:
        ids += words[: TOKENS.text_block] + audio[: TOKENS.audio_block]
        words, audio = words[TOKENS.text_block :], audio[TOKENS.audio_block :]
    return [START, *ids, END]


def read(ids: tuple[int, ...]) -> tuple[str, int]:
    """Its text, and how many groups of audio it has; all of it must parse."""
    parser = AnswerParser(TOKENS, TEXT)
    events = [*parser.push(ids), *parser.finish()]
    assert not any(isinstance(event, Malformed) for event in events)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text, sum(isinstance(event, AudioGroup) for event in events)


def test_an_answer_that_was_heard_to_its_end_stays_as_it_was() -> None:
    answer = woven(SENTENCE, 36)
    assert cut_answer([*answer, EOT], 36 * GROUP_TOKENS, TOKENS, TEXT) == tuple(answer)


def test_what_was_heard_is_the_beginning_that_the_model_gave() -> None:
    answer = [*woven(SENTENCE, 36), EOT]
    for tokens in (18 * GROUP_TOKENS, 18 * GROUP_TOKENS - 3):
        heard = heard_ids(answer, tokens, TOKENS)
        assert heard == tuple(answer[: len(heard)])
        assert read(heard)[1] == 18
        assert answer[len(heard) - 1] >= TOKENS.audio_offset
    assert heard_ids(answer, 99 * GROUP_TOKENS, TOKENS) == tuple(answer[:-2])
    assert heard_ids(answer, 0, TOKENS) == ()


def test_an_answer_of_which_nothing_was_heard_is_empty() -> None:
    assert cut_answer(woven(SENTENCE, 36), 0, TOKENS, TEXT) == ()


def test_words_are_kept_in_proportion_to_the_sound() -> None:
    text, count = read(cut_answer([*woven(SENTENCE, 36), EOT], 18 * GROUP_TOKENS, TOKENS, TEXT))
    assert count == 18
    assert SENTENCE.startswith(text)
    assert len(SENTENCE) / 2 <= len(text) <= len(SENTENCE) / 2 + len(" weather")
    assert SENTENCE[len(text)] == " "  # a word is not cut


def test_a_group_that_began_counts_as_heard() -> None:
    _, count = read(cut_answer(woven(SENTENCE, 36), 7 * GROUP_TOKENS + 1, TOKENS, TEXT))
    assert count == 8


def test_while_an_answer_is_being_made_its_words_run_ahead_and_are_not_counted_as_heard() -> None:
    unfinished = [START, *TEXT.encode(SENTENCE), *groups(TOKENS, 6)]
    text, count = read(cut_answer(unfinished, 6 * GROUP_TOKENS, TOKENS, TEXT))
    assert count == 6
    assert 0 < len(text) < len(SENTENCE) / 2  # 0.7 s of sound


def test_the_markers_of_every_segment_are_kept() -> None:
    answer = [*woven("One two three.", 6), *woven(SENTENCE, 30, first=6), EOT]
    cut = cut_answer(answer, 16 * GROUP_TOKENS, TOKENS, TEXT)
    assert list(cut[: len(woven("One two three.", 6))]) == woven("One two three.", 6)
    assert [token for token in cut if token in (START, END)] == [START, END, START, END]
    assert read(cut)[1] == 16


def test_a_bundle_without_markers_gets_none() -> None:
    bare = TOKENS.model_copy(update={"audio_start": None, "audio_end": None})
    cut = cut_answer([*TEXT.encode(SENTENCE), *groups(TOKENS, 30)], 10 * GROUP_TOKENS, bare, TEXT)
    assert read(cut)[1] == 10


@given(st.integers(0, 40), st.integers(0, 260), st.booleans())
def test_what_is_left_is_always_a_beginning_of_text_and_sound(
    count: int, audio_tokens: int, ended: bool
) -> None:
    answer = [*woven(SENTENCE, count), *([EOT] if ended else [])]
    cut = cut_answer(answer, audio_tokens, TOKENS, TEXT)
    text, left = read(cut)
    assert SENTENCE.startswith(text)
    assert left == min(count, -(-audio_tokens // GROUP_TOKENS))
    spoken = [token for token in cut if token >= TOKENS.audio_offset]
    assert spoken == groups(TOKENS, left)
