"""What the ears make of a stream does not depend on how the client cuts it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import GROUP_SAMPLES, GroupStream, GroupTokenizer, LoudnessVad, pcm

from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing.speech_events import (
    BufferFull,
    SilenceTimedOut,
    SpeechEvent,
    TurnEncoded,
    TurnEnded,
    TurnGrew,
    TurnStarted,
)
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.parts import WireFormat, input_of, output_of
from aqaa.server.protocol.session_types import ServerVad
from aqaa.server.protocol.types import PcmaFormat, PcmFormat, PcmuFormat
from aqaa.tokenizers.steps import Steps
from aqaa.tokenizers.transcriber import Tail

RULES = TurnRules.of(ServerVad())
TURN = pcm(0.4, loud=False) + pcm(1.0, loud=True) + pcm(0.8, loud=False)


def ears(
    rules: TurnRules | None = RULES, *, format: WireFormat | None = None, seconds: float = 20.0
) -> SpeechInput:
    wire = input_of(format or PcmFormat())
    return SpeechInput(Tokenising(GroupTokenizer()), LoudnessVad(), wire, rules, seconds)


def hear(listener: SpeechInput, data: bytes, step: int = 960) -> list[SpeechEvent]:
    heard: list[SpeechEvent] = []
    for begin in range(0, len(data), step):
        heard += compute_alone(listener.push(data[begin : begin + step]))
    return heard


def ended(heard: list[SpeechEvent]) -> list[TurnEnded]:
    return [one for one in heard if isinstance(one, TurnEnded)]


def loud_groups(tokens: tuple[int, ...]) -> int:
    return sum(token - 2000 > 100 for token in tokens[::5])


def test_a_turn_begins_before_its_speech_by_the_prefix_padding() -> None:
    (started,) = [one for one in hear(ears(), TURN) if isinstance(one, TurnStarted)]
    assert started.sample / 16 == pytest.approx(400 - 300, abs=32)


def test_a_turn_holds_all_of_its_speech() -> None:
    (end,) = ended(hear(ears(), TURN))
    assert loud_groups(end.tokens) >= 8


def test_a_turn_ends_half_a_second_after_its_speech() -> None:
    (end,) = ended(hear(ears(), TURN))
    assert end.silence_sample / 16 == pytest.approx(1400, abs=33)
    assert (end.sample - end.silence_sample) / 16 == pytest.approx(500, abs=21)


@given(steps=st.lists(st.integers(1, 9600), min_size=1, max_size=20))
@settings(max_examples=30)
def test_any_cutting_of_the_stream_gives_the_same_turn(steps: list[int]) -> None:
    listener = ears()
    heard: list[SpeechEvent] = []
    at, turn = 0, 0
    while at < len(TURN):
        size = steps[turn % len(steps)] * 2
        heard += compute_alone(listener.push(TURN[at : at + size]))
        at, turn = at + size, turn + 1
    (end,) = ended(heard)
    assert loud_groups(end.tokens) == loud_groups(ended(hear(ears(), TURN))[0].tokens)


@pytest.mark.parametrize(
    "format",
    [
        PcmFormat(rate=8000),
        PcmFormat(rate=16000),
        PcmFormat(rate=48000),
        PcmuFormat(),
        PcmaFormat(),
    ],
    ids=["8k", "16k", "48k", "pcmu", "pcma"],
)
def test_speech_is_heard_in_every_format(format: WireFormat) -> None:
    samples = np.frombuffer(TURN, "<i2").astype(np.float32) / 32768
    wire = output_of(format)
    wire_in = type(wire)(wire.target, source_rate=24_000)
    (end,) = ended(hear(ears(format=format), wire_in.push(samples) + wire_in.flush()))
    assert loud_groups(end.tokens) >= 8


class LateStream(GroupStream):
    """Its tokens come half a second after its windows, as with a right context."""

    late: tuple[int, ...] = ()

    def pushing(self, pcm: np.ndarray) -> Steps[None, None, list[int]]:
        ids = [*self.late, *(yield from super().pushing(pcm))]
        self.late = tuple(ids[-4 * 5 :])
        return ids[: -4 * 5]

    def flushing(self) -> Steps[None, None, list[int]]:
        yield from super().flushing()
        return list(self.late)

    def fork(self) -> LateStream:
        other = LateStream(self._rest.copy(), self._windows)
        other.late = self.late
        return other


class LateTokenizer(GroupTokenizer):
    def stream(self) -> LateStream:
        return LateStream()


@pytest.mark.parametrize("tokenizer", [GroupTokenizer(), LateTokenizer()], ids=["at once", "late"])
def test_a_transcriber_gets_each_window_once_and_waits_for_no_token(
    tokenizer: GroupTokenizer,
) -> None:
    wire = input_of(PcmFormat())
    listener = SpeechInput(Tokenising(tokenizer), LoudnessVad(), wire, RULES, 20.0)
    speech = hear(listener, TURN[: len(TURN) // 2])
    early = [one for one in speech if isinstance(one, TurnEncoded)]
    assert len(early) >= 5, "windows are told while the user speaks"
    heard = speech + hear(listener, TURN[len(TURN) // 2 :])
    told = [one.windows for one in heard if isinstance(one, TurnEncoded)]
    (end,) = ended(heard)
    windows = [window for part in (*told, end.windows) for window in part.windows]
    assert len(windows) - 1 == len(end.tokens) // 5
    assert [isinstance(window, Tail) for window in windows] == [False] * (len(windows) - 1) + [True]
    assert {part.turn for part in (*told, end.windows)} == {1}


def test_a_turn_that_never_ends_is_ended_at_the_longest_that_it_may_be() -> None:
    heard = hear(ears(seconds=2.0), pcm(5.0, loud=True))
    assert len(ended(heard)) == 2
    assert all(loud_groups(end.tokens) <= 17 for end in ended(heard))


def test_without_turn_detection_only_a_commit_ends_the_turn() -> None:
    listener = ears(None)
    heard = hear(listener, TURN + TURN)
    assert {type(one) for one in heard} == {TurnGrew, TurnEncoded}
    assert loud_groups(compute_alone(listener.commit()).tokens) >= 16
    assert compute_alone(listener.commit()).tokens == ()


def test_a_commit_leaves_out_the_silence_around_the_speech_as_turn_detection_does() -> None:
    listener = ears(None)
    hear(listener, pcm(3.0, loud=False) + TURN + pcm(3.0, loud=False))
    (end,) = ended(hear(ears(), pcm(3.0, loud=False) + TURN))
    assert compute_alone(listener.commit()).tokens == end.tokens


def test_a_commit_keeps_the_silence_between_words() -> None:
    listener = ears(None)
    hear(listener, TURN + TURN)  # 0.3 s before, 1 s, 1.2 s between, 1 s, 0.16 s after
    assert len(compute_alone(listener.commit()).tokens) == 30 * 5


def test_a_commit_in_which_nobody_speaks_holds_everything() -> None:
    listener = ears(None)
    hear(listener, pcm(2.2, loud=False))
    assert len(compute_alone(listener.commit()).tokens) == 18 * 5


def test_a_long_silence_before_a_manual_turn_costs_it_nothing() -> None:
    listener = ears(None, seconds=2.0)
    heard = hear(listener, pcm(5.0, loud=False) + pcm(1.0, loud=True))
    assert not any(isinstance(one, BufferFull) for one in heard)
    assert loud_groups(compute_alone(listener.commit()).tokens) >= 7


def test_without_turn_detection_too_much_is_told_once_and_the_rest_dropped() -> None:
    listener = ears(None, seconds=2.0)
    heard = hear(listener, pcm(5.0, loud=True))
    assert sum(isinstance(one, BufferFull) for one in heard) == 1
    assert len(compute_alone(listener.commit()).tokens) <= 17 * 5


def test_cleared_sound_is_not_in_the_next_commit() -> None:
    listener = ears(None)
    hear(listener, pcm(3.0, loud=True))
    listener.clear()
    hear(listener, pcm(1.0, loud=True))
    assert len(compute_alone(listener.commit()).tokens) == 8 * 5


def test_a_commit_in_mid_speech_ends_the_turn_there() -> None:
    listener = ears()
    hear(listener, pcm(0.4, loud=False) + pcm(1.0, loud=True))
    assert loud_groups(compute_alone(listener.commit()).tokens) >= 7
    assert ended(hear(listener, pcm(1.0, loud=False))) == []


def test_a_commit_before_any_speech_holds_what_was_heard() -> None:
    listener = ears()
    hear(listener, pcm(1.0, loud=False))
    assert len(compute_alone(listener.commit()).tokens) == 8 * 5


def test_nobody_speaking_is_told_when_the_session_wants_to_know() -> None:
    rules = TurnRules.of(ServerVad(idle_timeout_ms=1000))
    heard = hear(ears(rules), pcm(2.5, loud=False))
    assert [type(one) for one in heard] == [SilenceTimedOut, SilenceTimedOut]


def test_memory_does_not_grow_while_nobody_speaks() -> None:
    listener = ears()
    silence = pcm(20.0, loud=False)
    tracemalloc.start()
    try:
        hear(listener, silence, step=48_000)
        settled, _ = tracemalloc.get_traced_memory()
        for _ in range(2):
            hear(listener, silence, step=48_000)
        grown = tracemalloc.get_traced_memory()[0] - settled
    finally:
        tracemalloc.stop()
    assert grown < 64_000  # one second of samples
    assert len(compute_alone(listener.commit()).tokens) <= 11 * 16_000 // GROUP_SAMPLES * 5
