"""A judge is asked in each quiet, and its word says how long the silence must last."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import GroupTokenizer, LoudnessVad, ScriptedJudge, pcm

from aqaa.models.bundle import TurnThresholds
from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing.end_of_turn import (
    LONGEST_MS,
    UNSURE_MS,
    Eagerness,
    Wait,
    wait_of,
)
from aqaa.server.hearing.speech_events import (
    SpeechEvent,
    TurnEnded,
    TurnPaused,
    TurnReopened,
    TurnResumed,
)
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import (
    EAGERNESS_MS,
    DetectorEvent,
    EndOfTurn,
    Onset,
    Pause,
    Quiet,
    Resumed,
    TurnDetector,
    TurnRules,
)
from aqaa.server.hearing.vad import FRAME_SAMPLES
from aqaa.server.parts import input_of
from aqaa.server.protocol.session_types import (
    InputAudio,
    SemanticVad,
    ServerVad,
    Session,
    SessionAudio,
)
from aqaa.server.protocol.types import PcmFormat

RULES = TurnRules.of(SemanticVad())
THRESHOLDS = TurnThresholds(sure=0.9, likely=0.5, unlikely=0.1)
SURE = wait_of(0.95, THRESHOLDS, "auto")
UNLIKELY = wait_of(0.05, THRESHOLDS, "auto")

LOUD, SOFT, NOTHING = (0.9, 1.0), (0.9, 1e-6), (0.0, 1e-6)  # a frame's probability and power
BURST = (0.0, 1.0)


def detect(
    frames: list[tuple[float, float]], wait: Wait = SURE, rules: TurnRules = RULES
) -> list[DetectorEvent]:
    """What a detector tells of these frames if every quiet is judged in the same way."""
    detector = TurnDetector(rules, ask_after_ms=64)
    events: list[DetectorEvent] = []
    for count, (probability, power) in enumerate(frames, start=1):
        due = detector.frame(probability, power) + detector.clock(count * FRAME_SAMPLES)
        while due:
            events += due
            due = []
            if isinstance(events[-1], Quiet):
                detector.judged(wait)
                due = detector.clock(count * FRAME_SAMPLES)
    return events


def kinds(events: list[DetectorEvent]) -> list[type]:
    return [type(event) for event in events]


def test_a_quiet_is_reported_before_the_model_is_sure_of_a_silence() -> None:
    assert detect([LOUD] * 10 + [SOFT] * 2, UNLIKELY)[1:] == [Quiet(10 * FRAME_SAMPLES)]


def test_a_sure_end_starts_the_answer_at_once_and_ends_the_turn_soon() -> None:
    quiet, pause, end = detect([LOUD] * 10 + [SOFT] * 3 + [NOTHING] * 20)[1:]
    assert (quiet, pause) == (Quiet(10 * FRAME_SAMPLES), Pause(10 * FRAME_SAMPLES))
    assert isinstance(end, EndOfTurn)
    assert (end.sample - end.silence_sample) / 16 == pytest.approx(THRESHOLDS.sure_ms, abs=32)


def test_an_unlikely_end_is_waited_for_the_longest() -> None:
    frames = round(LONGEST_MS["auto"] / 32)
    events = detect([LOUD] * 10 + [NOTHING] * (frames - 20), UNLIKELY)
    assert kinds(events) == [Onset, Quiet]
    events = detect([LOUD] * 10 + [NOTHING] * (frames + 1), UNLIKELY)
    assert kinds(events) == [Onset, Quiet, Pause, EndOfTurn]


def test_power_alone_ends_no_turn() -> None:
    assert kinds(detect([LOUD] * 10 + [SOFT] * 100)) == [Onset, Quiet, Pause]


def test_sound_that_returns_before_the_model_is_sure_ends_the_quiet() -> None:
    events = detect([LOUD] * 10 + [SOFT] * 2 + [LOUD] * 5 + [SOFT] * 2)
    assert kinds(events) == [Onset, Quiet, Pause, Resumed, Quiet, Pause]


def test_noise_in_a_silence_that_the_model_knows_is_no_speech() -> None:
    events = detect([LOUD] * 10 + [SOFT] * 2 + [NOTHING] * 2 + [BURST] + [NOTHING] * 10)
    assert kinds(events) == [Onset, Quiet, Pause, EndOfTurn]


def test_a_model_that_is_late_by_a_few_frames_does_not_ask_again() -> None:
    events = detect([LOUD] * 10 + [SOFT] * 5 + [NOTHING] * 10)
    assert kinds(events) == [Onset, Quiet, Pause, EndOfTurn]


def test_soft_speech_within_a_quiet_makes_the_silence_after_it_another_one() -> None:
    events = detect([LOUD] * 10 + [SOFT] * 12 + [NOTHING] * 10)
    assert kinds(events) == [Onset, Quiet, Pause, Resumed, Quiet, Pause, EndOfTurn]


def test_in_a_noisy_room_the_models_silence_is_asked_about() -> None:
    events = detect([LOUD] * 10 + [BURST] * 10)
    assert kinds(events) == [Onset, Quiet, Pause, EndOfTurn]


def test_under_server_vad_no_judge_is_asked() -> None:
    events = detect([LOUD] * 10 + [NOTHING] * 40, rules=TurnRules.of(ServerVad()))
    assert kinds(events) == [Onset, Pause, EndOfTurn]
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert end.wait.word == "plain"


@given(st.lists(st.sampled_from([LOUD, SOFT, NOTHING, BURST, (0.4, 1e-6)]), max_size=120))
def test_every_history_is_a_legal_one(frames: list[tuple[float, float]]) -> None:
    state = "idle"
    following = {
        ("idle", Onset): "speaking",
        ("speaking", Quiet): "quiet",
        ("quiet", Resumed): "speaking",
        ("quiet", Pause): "paused",
        ("paused", Resumed): "speaking",
        ("paused", EndOfTurn): "idle",
    }
    for event in detect(frames, wait_of(0.3, THRESHOLDS, "high")):
        assert (state, type(event)) in following
        state = following[state, type(event)]


@pytest.mark.parametrize("eagerness", ["low", "medium", "high", "auto"])
def test_the_less_likely_an_end_the_longer_is_the_wait(eagerness: Eagerness) -> None:
    waits = [wait_of(chance, THRESHOLDS, eagerness) for chance in (1.0, 0.6, 0.2, 0.0)]
    ends = [THRESHOLDS.sure_ms, THRESHOLDS.likely_ms, UNSURE_MS, LONGEST_MS[eagerness]]
    assert [wait.end_ms for wait in waits] == ends
    assert all(wait.pause_ms < wait.end_ms for wait in waits)


# --- the speech input that asks ------------------------------------------------------------------


def ears(judge: ScriptedJudge, rules: TurnRules = RULES) -> SpeechInput:
    wire = input_of(PcmFormat())
    return SpeechInput(Tokenising(GroupTokenizer()), LoudnessVad(), wire, rules, 20.0, judge)


def hear(listener: SpeechInput, data: bytes, step: int = 960) -> list[SpeechEvent]:
    heard: list[SpeechEvent] = []
    for begin in range(0, len(data), step):
        heard += compute_alone(listener.push(data[begin : begin + step]))
    return heard


def ended(heard: list[SpeechEvent]) -> list[TurnEnded]:
    return [one for one in heard if isinstance(one, TurnEnded)]


SPEECH = pcm(0.4, loud=False) + pcm(1.0, loud=True)


@pytest.mark.parametrize(
    ("chance", "wait_ms"),
    [(0.95, THRESHOLDS.sure_ms), (0.6, THRESHOLDS.likely_ms), (0.2, UNSURE_MS)],
)
def test_the_judges_word_ends_the_turn(chance: float, wait_ms: float) -> None:
    judge = ScriptedJudge(chance)
    (end,) = ended(hear(ears(judge), SPEECH + pcm(0.9, loud=False)))
    assert (end.sample - end.silence_sample) / 16 == pytest.approx(wait_ms, abs=33)
    assert judge.asked == [end.tokens]


def test_an_answer_is_started_at_the_judges_word() -> None:
    for chance, after_ms in ((0.6, 64), (0.2, 260)):
        listener, silent = ears(ScriptedJudge(chance)), 0
        hear(listener, SPEECH)
        while not any(isinstance(e, TurnPaused) for e in hear(listener, pcm(0.02, loud=False))):
            silent += 20
        assert silent == pytest.approx(after_ms, abs=45)


def test_a_speaker_who_goes_on_is_judged_anew_with_all_that_was_said() -> None:
    judge = ScriptedJudge(0.05, 0.95)
    data = SPEECH + pcm(0.8, loud=False) + pcm(0.6, loud=True) + pcm(0.8, loud=False)
    heard = hear(ears(judge), data)
    (end,) = ended(heard)
    part, whole = judge.asked
    assert whole == end.tokens
    assert len(part) < len(whole)
    assert not [one for one in heard if isinstance(one, TurnResumed)], "no pause had been told"


def test_a_turn_that_is_open_again_is_judged_as_a_whole() -> None:
    judge = ScriptedJudge(0.95)
    data = SPEECH + pcm(0.6, loud=False) + pcm(0.6, loud=True) + pcm(0.8, loud=False)
    heard = hear(ears(judge), data)
    assert [type(one) for one in heard if isinstance(one, TurnReopened)] == [TurnReopened]
    assert [one.tokens for one in ended(heard)] == judge.asked
    assert len(judge.asked[1]) > len(judge.asked[0])


def test_it_may_go_on_for_as_long_after_a_short_wait_as_after_a_long_one() -> None:
    for gap, goes_on in ((0.2 + 0.9, True), (0.2 + 1.1, False)):
        data = SPEECH + pcm(gap, loud=False) + pcm(0.6, loud=True)
        heard = hear(ears(ScriptedJudge(0.95)), data)
        assert any(isinstance(one, TurnReopened) for one in heard) is goes_on


def transcribing(detection: SemanticVad) -> TurnRules:
    heard = SessionAudio(input=InputAudio(turn_detection=detection))
    rules = TurnRules.of_session(Session(id="s", type="transcription", model="m", audio=heard))
    assert rules is not None
    return rules


@pytest.mark.parametrize(
    ("rules", "sure_ms"),
    [
        (TurnRules.of(SemanticVad(interrupt_response=False)), EAGERNESS_MS["auto"]),
        (
            TurnRules.of(SemanticVad(interrupt_response=False, create_response=False)),
            THRESHOLDS.sure_ms,
        ),
        (transcribing(SemanticVad()), THRESHOLDS.sure_ms),
        (transcribing(SemanticVad(interrupt_response=False)), THRESHOLDS.sure_ms),
    ],
    ids=["an answer follows", "none does", "transcription", "transcription, no interruptions"],
)
def test_where_nothing_is_taken_back_the_judge_is_asked_and_its_end_stands(
    rules: TurnRules, sure_ms: float
) -> None:
    goes_on = pcm(0.8, loud=False) + pcm(0.6, loud=True) + pcm(0.8, loud=False)
    heard = hear(ears(ScriptedJudge(0.95), rules), SPEECH + goes_on)
    for end in ended(heard):
        assert (end.sample - end.silence_sample) / 16 == pytest.approx(sure_ms, abs=33)
    assert len(ended(heard)) == 2
    assert not any(isinstance(one, TurnReopened) for one in heard)
    (whole,) = ended(hear(ears(ScriptedJudge(0.05, 0.95), rules), SPEECH + goes_on))
    assert whole.wait is not None
    assert whole.wait.word == "sure", "in mid-sentence it waited"


def test_under_server_vad_the_judge_hears_nothing() -> None:
    judge = ScriptedJudge(0.95)
    (end,) = ended(hear(ears(judge, TurnRules.of(ServerVad())), SPEECH + pcm(0.9, loud=False)))
    assert judge.asked == []
    assert end.wait is not None
    assert end.wait.end_ms == ServerVad().silence_duration_ms


def test_rules_that_change_in_mid_turn_leave_it_to_silence() -> None:
    judge = ScriptedJudge(0.95)
    listener = ears(judge, TurnRules.of(ServerVad()))
    hear(listener, SPEECH)
    listener.configure(None, RULES)
    (end,) = ended(hear(listener, pcm(1.2, loud=False)))
    assert (end.wait.word if end.wait else None, judge.asked) == ("plain", [])


def test_the_judge_is_asked_in_the_same_quiets_however_the_client_cuts_its_stream() -> None:
    data = SPEECH + pcm(0.8, loud=False) + pcm(0.6, loud=True) + pcm(0.8, loud=False)
    asked = set()
    for step in (160, 960, 4800, len(data)):
        judge = ScriptedJudge(0.05, 0.95)
        hear(ears(judge), data, step)
        asked.add(tuple(len(ids) for ids in judge.asked))
    assert len(asked) == 1


def test_a_silence_shorter_than_a_pause_has_its_pause_at_its_end() -> None:
    rules = replace(TurnRules.of(ServerVad()), silence_ms=50)
    assert TurnDetector(rules).plain_wait() == Wait("plain", 50, 50)
