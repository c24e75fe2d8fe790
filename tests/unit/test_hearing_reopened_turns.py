"""A turn that has ended goes on, for the ears, as if it had never ended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import CountingTranscriber, GroupTokenizer, LoudnessVad, pcm

from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing.speech_events import (
    SpeechEvent,
    TurnEncoded,
    TurnEnded,
    TurnReopened,
    TurnStarted,
)
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import REOPEN_MS, TurnRules
from aqaa.server.parts import input_of
from aqaa.server.protocol.session_types import SemanticVad, ServerVad
from aqaa.server.protocol.types import PcmFormat

EAGER = TurnRules.of(SemanticVad(eagerness="high"))  # 300 ms of silence
PATIENT = replace(EAGER, silence_ms=800)
FIRST = pcm(0.4, loud=False) + pcm(0.7, loud=True)
GAP = pcm(0.6, loud=False)
REST = pcm(0.5, loud=True) + pcm(1.2, loud=False)


def ears(rules: TurnRules = EAGER, seconds: float = 20.0) -> SpeechInput:
    wire = input_of(PcmFormat())
    return SpeechInput(Tokenising(GroupTokenizer()), LoudnessVad(), wire, rules, seconds)


def hear(listener: SpeechInput, data: bytes, step: int = 960) -> list[SpeechEvent]:
    heard: list[SpeechEvent] = []
    for begin in range(0, len(data), step):
        heard += compute_alone(listener.push(data[begin : begin + step]))
    return heard


def pieces_of(data: bytes, steps: Sequence[int]) -> Iterator[bytes]:
    """`data` in pieces of so many samples, again and again."""
    at = 0
    for step in itertools.cycle(steps):
        if at >= len(data):
            return
        yield data[at : at + 2 * step]
        at += 2 * step


def ended(heard: list[SpeechEvent]) -> list[TurnEnded]:
    return [one for one in heard if isinstance(one, TurnEnded)]


def starts(heard: list[SpeechEvent]) -> list[type[SpeechEvent]]:
    return [type(one) for one in heard if isinstance(one, TurnStarted | TurnReopened)]


@given(steps=st.lists(st.integers(1, 9600), min_size=1, max_size=20))
@settings(max_examples=30)
def test_its_tokens_are_those_of_a_turn_that_never_ended(steps: list[int]) -> None:
    eager, patient = ears(), ears(PATIENT)
    heard: list[SpeechEvent] = []
    heard_patiently: list[SpeechEvent] = []
    for piece in pieces_of(FIRST + GAP + REST, steps):
        heard += compute_alone(eager.push(piece))
        heard_patiently += compute_alone(patient.push(piece))
    part, whole = ended(heard)
    (never_ended,) = ended(heard_patiently)
    assert starts(heard) == [TurnStarted, TurnReopened]
    assert whole.tokens == never_ended.tokens
    assert 0 < len(part.tokens) < len(whole.tokens)


def test_it_began_where_it_began_before() -> None:
    heard = hear(ears(), FIRST + GAP + REST)
    began = [one.sample for one in heard if isinstance(one, TurnStarted | TurnReopened)]
    assert began[0] == began[1]


def test_a_transcriber_is_told_the_whole_turn_again_under_a_new_number() -> None:
    said = []
    heard = hear(ears(), FIRST + GAP + REST)
    for end in ended(heard):
        told = [one.windows for one in heard if isinstance(one, TurnEncoded)]
        parts = [*(one for one in told if one.turn == end.windows.turn), end.windows]
        transcript = CountingTranscriber().stream()
        pieces = [piece for part in parts for one in part.windows for piece in transcript.push(one)]
        said.append("".join(piece.text for piece in pieces))
    (never_ended,) = ended(hear(ears(PATIENT), FIRST + GAP + REST))
    loud = sum(token - 2000 > 100 for token in never_ended.tokens[::5])
    assert len(said[1].split()) == loud
    assert said[1].startswith(said[0])
    assert said[0] != said[1]


@pytest.mark.parametrize(
    ("silence", "goes_on"),
    [(0.3 + REOPEN_MS / 1000 - 0.1, True), (0.3 + REOPEN_MS / 1000 + 0.1, False)],
)
@pytest.mark.parametrize("step", [320, 960, 48_000])
def test_it_goes_on_within_a_second_of_its_end(silence: float, goes_on: bool, step: int) -> None:
    heard = hear(ears(), FIRST + pcm(silence, loud=False) + REST, step)
    assert starts(heard) == [TurnStarted, TurnReopened if goes_on else TurnStarted]


def test_whether_it_goes_on_does_not_depend_on_how_the_client_cuts_its_stream() -> None:
    found = set()
    for late_ms in range(-80, 90, 10):
        data = FIRST + pcm(0.3 + (REOPEN_MS + late_ms) / 1000, loud=False) + pcm(0.2, loud=True)
        small, large = starts(hear(ears(), data, 320)), starts(hear(ears(), data, 96_000))
        assert small == large, f"{late_ms} ms late"
        found.add(small[-1])
    assert found == {TurnReopened, TurnStarted}


def test_it_goes_on_as_often_as_its_speaker_does() -> None:
    heard = hear(ears(), FIRST + GAP + pcm(0.4, loud=True) + GAP + REST)
    (never_ended,) = ended(hear(ears(PATIENT), FIRST + GAP + pcm(0.4, loud=True) + GAP + REST))
    assert starts(heard) == [TurnStarted, TurnReopened, TurnReopened]
    assert ended(heard)[-1].tokens == never_ended.tokens


@pytest.mark.parametrize(
    "rules",
    [
        TurnRules.of(ServerVad(silence_duration_ms=300)),
        TurnRules.of(SemanticVad(eagerness="high", interrupt_response=False)),
    ],
    ids=["server_vad", "semantic_vad that does not interrupt"],
)
def test_under_other_rules_two_turns_are_two(rules: TurnRules) -> None:
    heard = hear(ears(rules), FIRST + GAP + REST)
    assert starts(heard) == [TurnStarted, TurnStarted]


def test_a_turn_that_was_let_go_or_cleared_or_committed_does_not_go_on() -> None:
    for give_up in (
        SpeechInput.let_go,
        SpeechInput.clear,
        lambda listener: compute_alone(listener.commit()),
        lambda listener: listener.configure(None, TurnRules.of(ServerVad())),
    ):
        listener = ears()
        assert len(ended(hear(listener, FIRST + GAP))) == 1
        give_up(listener)
        assert starts(hear(listener, REST)) == [TurnStarted]


def test_a_turn_that_may_not_be_longer_does_not_go_on() -> None:
    heard = hear(ears(seconds=2.0), pcm(5.0, loud=True))
    assert set(starts(heard)) == {TurnStarted}


def test_rules_that_come_in_mid_turn_do_not_re_open_what_was_not_kept() -> None:
    listener = ears(TurnRules.of(ServerVad(silence_duration_ms=300)))
    hear(listener, FIRST)
    listener.configure(None, EAGER)
    assert starts(hear(listener, GAP + REST)) == [TurnStarted]
