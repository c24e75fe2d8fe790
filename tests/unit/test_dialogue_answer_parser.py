"""The parser of an answer's ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_text import a_group, groups, tiny_text

from aqaa.models.errors import StreamClosedError
from aqaa.models.groups import GROUP_TOKENS, LINGUISTIC_CODES, LINGUISTIC_PER_GROUP
from aqaa.server.dialogue.answer_parser import (
    AnswerParser,
    AudioGroup,
    End,
    Malformed,
    ParsedEvent,
    SegmentEnd,
    SegmentStart,
    TextDelta,
    VoiceSwitch,
)

TEXT, TOKENS = tiny_text()
LINGUISTIC = TOKENS.audio_offset
SEMANTIC = TOKENS.audio_offset + LINGUISTIC_CODES
START, END = TOKENS.audio_start, TOKENS.audio_end
assert START is not None and END is not None  # noqa: PT018


def parse(ids: list[int]) -> list[ParsedEvent]:
    parser = AnswerParser(TOKENS, TEXT)
    return [*parser.push(ids), *parser.finish()]


def text_of(events: list[ParsedEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def groups_of(events: list[ParsedEvent]) -> list[tuple[int, ...]]:
    return [event.tokens for event in events if isinstance(event, AudioGroup)]


def malformed_in(events: list[ParsedEvent]) -> list[tuple[int, ...]]:
    return [event.ids for event in events if isinstance(event, Malformed)]


def test_a_woven_answer_becomes_text_groups_and_its_end() -> None:
    sentence = "I am well. The weather is fine today."
    words = TEXT.encode(sentence)
    ids = [START, *words[:10], *groups(TOKENS, 3), *words[10:], *groups(TOKENS, 3, 3), END]
    events = parse([*ids, TOKENS.eot])
    assert text_of(events) == sentence
    assert [event.index for event in events if isinstance(event, AudioGroup)] == list(range(6))
    assert isinstance(events[0], SegmentStart)
    assert [type(event) for event in events[-2:]] == [SegmentEnd, End]
    assert malformed_in(events) == []


def test_a_group_holds_audio_tokens_as_the_vocoder_takes_them() -> None:
    ids = [LINGUISTIC + 5, LINGUISTIC + 6, SEMANTIC + 7, SEMANTIC + 8, SEMANTIC + 9]
    assert groups_of(parse(ids)) == [
        (5, 6, LINGUISTIC_CODES + 7, LINGUISTIC_CODES + 8, LINGUISTIC_CODES + 9)
    ]


def test_text_and_audio_may_come_in_any_proportion() -> None:
    words = TEXT.encode("One two three.")
    ids = [*words[:1], *groups(TOKENS, 1), *words[1:3], *groups(TOKENS, 4, 1), *words[3:]]
    events = parse(ids)
    assert text_of(events) == "One two three."
    assert len(groups_of(events)) == 5
    assert malformed_in(events) == []


def test_a_character_of_several_ids_comes_whole() -> None:
    sentence = "Hello 世界 🎧!"
    events = parse([token for id_ in TEXT.encode(sentence) for token in (id_, *a_group(TOKENS))])
    assert text_of(events) == sentence
    assert all("\ufffd" not in e.text for e in events if isinstance(e, TextDelta))
    assert sum(e.tokens for e in events if isinstance(e, TextDelta)) == len(TEXT.encode(sentence))


def test_a_voice_marker_switches_the_voice_and_is_silent() -> None:
    events = parse([TOKENS.voice_markers["a"], *TEXT.encode("Hello there")])
    assert events[0] == VoiceSwitch("a")
    assert text_of(events) == "Hello there"


BROKEN = {
    "a semantic token is lost": [LINGUISTIC, LINGUISTIC, SEMANTIC, SEMANTIC],
    "a linguistic token is lost": [LINGUISTIC, SEMANTIC, SEMANTIC, SEMANTIC],
    "both linguistic tokens are lost": [SEMANTIC, SEMANTIC, SEMANTIC],
    "a semantic token too many": [SEMANTIC],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_run_is_reported_and_the_next_group_is_spoken(broken: list[int]) -> None:
    before, after = a_group(TOKENS, 1), a_group(TOKENS, 2)
    events = parse([*before, *broken, *after])
    base = TOKENS.audio_offset
    assert groups_of(events) == [tuple(t - base for t in ids) for ids in (before, after)]
    assert malformed_in(events) == [tuple(broken)]


def test_a_linguistic_token_too_many_costs_one_group() -> None:
    events = parse([LINGUISTIC, *a_group(TOKENS, 1), *a_group(TOKENS, 2)])
    assert len(groups_of(events)) == 1
    assert malformed_in(events) == [(LINGUISTIC, *a_group(TOKENS, 1))]


def test_text_within_a_group_breaks_it() -> None:
    words = TEXT.encode("Hello")
    cut, rest = a_group(TOKENS)[:3], a_group(TOKENS)[3:]
    events = parse([*cut, *words, *rest, *a_group(TOKENS, 1)])
    assert malformed_in(events) == [tuple(cut), tuple(rest)]
    assert len(groups_of(events)) == 1
    assert text_of(events) == "Hello"


@pytest.mark.parametrize(
    "stray",
    [TOKENS.bos, TOKENS.bot, TOKENS.pad, TEXT.vocabulary, TOKENS.audio_end_id],
    ids=["bos", "bot", "pad", "between text and audio", "beyond audio"],
)
def test_an_id_that_cannot_be_in_an_answer_is_dropped(stray: int) -> None:
    words = TEXT.encode("Hello there")
    events = parse([words[0], stray, *words[1:]])
    assert malformed_in(events) == [(stray,)]
    assert text_of(events) == "Hello there"


def test_dropped_ids_are_counted() -> None:
    parser = AnswerParser(TOKENS, TEXT)
    parser.push([LINGUISTIC, SEMANTIC, SEMANTIC, TOKENS.bos, *a_group(TOKENS)])
    parser.finish()
    assert parser.malformed == 4


def test_a_group_that_a_limit_cuts_is_neither_spoken_nor_called_malformed() -> None:
    events = parse([*a_group(TOKENS), *a_group(TOKENS)[:4]])
    assert len(groups_of(events)) == 1
    assert malformed_in(events) == []


def test_a_group_that_the_end_cuts_is_never_spoken() -> None:
    events = parse([*a_group(TOKENS), *a_group(TOKENS)[:4], TOKENS.eot])
    assert len(groups_of(events)) == 1
    assert malformed_in(events) == [tuple(a_group(TOKENS)[:4])]
    assert events[-1] == End()


def test_nothing_may_follow_the_end() -> None:
    parser = AnswerParser(TOKENS, TEXT)
    parser.push([TOKENS.eot])
    with pytest.raises(StreamClosedError):
        parser.push([5])


def test_text_is_timed_by_how_long_it_takes_to_say() -> None:
    words = TEXT.encode("Hello there, how are you? I am well.")
    deltas = [e for e in parse([*words, *groups(TOKENS, 3)]) if isinstance(e, TextDelta)]
    starts = [delta.group for delta in deltas]
    assert starts[0] == 0
    assert starts == sorted(starts)
    seconds = starts[-1] * 0.12
    assert 1.0 < seconds < 4.0  # thirty-six characters of English, read aloud


def test_text_of_a_later_segment_is_timed_from_that_segments_first_group() -> None:
    ids = [START, *TEXT.encode("Hello"), *groups(TOKENS, 20), END, START, *TEXT.encode("there")]
    deltas = [event for event in parse(ids) if isinstance(event, TextDelta)]
    assert next(d.group for d in deltas if "there".startswith(d.text.strip())) >= 20


ANY_ID = st.one_of(
    st.integers(0, TOKENS.audio_end_id + 5),
    st.sampled_from([LINGUISTIC, SEMANTIC, START, END, TOKENS.bot]),
)


@given(st.lists(st.one_of(ANY_ID.map(lambda i: [i]), st.just(a_group(TOKENS)))), st.data())
def test_any_stream_in_any_pieces_gives_the_same_events(
    parts: list[list[int]], data: st.DataObject
) -> None:
    ids = [token for part in parts for token in part if token != TOKENS.eot]
    whole = parse(ids)
    parser = AnswerParser(TOKENS, TEXT)
    pieces: list[ParsedEvent] = []
    at = 0
    while at < len(ids):
        size = data.draw(st.integers(1, 7))
        pieces += parser.push(ids[at : at + size])
        at += size
    assert [*pieces, *parser.finish()] == whole
    assert sum(map(len, malformed_in(whole))) == parser.malformed
    for group in groups_of(whole):
        assert len(group) == GROUP_TOKENS
        assert [t < LINGUISTIC_CODES for t in group] == [
            i < LINGUISTIC_PER_GROUP for i in range(GROUP_TOKENS)
        ]
