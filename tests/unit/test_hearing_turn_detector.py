"""When a turn begins, pauses, goes on and ends, on the clock of received samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aqaa.server.hearing.turn_detector import (
    PAUSE_MS,
    DetectorEvent,
    EndOfTurn,
    Idle,
    Onset,
    Pause,
    Resumed,
    TurnDetector,
    TurnRules,
)
from aqaa.server.hearing.vad import FRAME_SAMPLES
from aqaa.server.protocol.session_types import SemanticVad, ServerVad

FRAME_MS = FRAME_SAMPLES / 16


def hear(detector: TurnDetector, probabilities: list[float]) -> list[DetectorEvent]:
    """Each frame's probability, and the clock at the frame's end."""
    events: list[DetectorEvent] = []
    for count, probability in enumerate(probabilities, start=1):
        events += detector.frame(probability)
        events += detector.clock(count * FRAME_SAMPLES)
    return events


def rules(**changes: object) -> TurnRules:
    return TurnRules.of(ServerVad.model_validate({"type": "server_vad", **changes}))


def frames(ms: float) -> int:
    return round(ms / FRAME_MS)


def kinds(events: list[DetectorEvent]) -> list[type]:
    return [type(event) for event in events]


def test_a_turn_begins_where_its_first_frame_of_speech_begins() -> None:
    events = hear(TurnDetector(rules()), [0.0] * 5 + [0.9] * 3)
    assert events == [Onset(5 * FRAME_SAMPLES)]


def test_a_click_of_one_frame_is_no_speech() -> None:
    assert hear(TurnDetector(rules()), [0.0, 0.9, 0.0, 0.9, 0.0]) == []


def test_a_turn_ends_when_the_silence_has_lasted_as_long_as_the_session_says() -> None:
    spoken = [0.9] * 10
    events = hear(TurnDetector(rules(silence_duration_ms=320)), spoken + [0.0] * 20)
    assert kinds(events) == [Onset, Pause, EndOfTurn]
    end = events[-1]
    assert isinstance(end, EndOfTurn)
    assert end.silence_sample == 10 * FRAME_SAMPLES
    assert end.sample - end.silence_sample == frames(320) * FRAME_SAMPLES


def test_a_turn_ends_between_frames_when_the_clock_says_so() -> None:
    detector = TurnDetector(rules(silence_duration_ms=500))
    hear(detector, [0.9] * 10 + [0.0] * 12)
    silence = 10 * FRAME_SAMPLES
    assert detector.clock(silence + 7999) == []
    assert kinds(detector.clock(silence + 8000)) == [EndOfTurn]


def test_speech_after_a_pause_goes_on_with_the_turn() -> None:
    pause = [0.0] * (frames(PAUSE_MS) + 2)
    events = hear(TurnDetector(rules()), [0.9] * 10 + pause + [0.9] * 3)
    assert kinds(events) == [Onset, Pause, Resumed]


def test_a_probability_a_little_below_the_threshold_does_not_end_speech() -> None:
    events = hear(TurnDetector(rules(threshold=0.5)), [0.9] * 10 + [0.4] * 40)
    assert kinds(events) == [Onset]


def test_a_silence_begins_where_the_sound_ended_if_the_model_notices_late() -> None:
    detector = TurnDetector(rules())
    for probability, power in [(0.9, 1.0)] * 10 + [(0.9, 1e-6)] * 2 + [(0.0, 1e-6)] * 3:
        detector.frame(probability, power)
    (pause,) = detector.clock(15 * FRAME_SAMPLES)
    assert pause == Pause(10 * FRAME_SAMPLES)


def test_a_noisy_room_leaves_the_silence_to_the_model() -> None:
    detector = TurnDetector(rules())
    for probability, power in [(0.9, 1.0)] * 12 + [(0.0, 0.05)] * 5:
        detector.frame(probability, power)
    (pause,) = detector.clock(17 * FRAME_SAMPLES)
    assert pause == Pause(12 * FRAME_SAMPLES)


def test_the_lowest_threshold_still_lets_a_turn_end() -> None:
    events = hear(TurnDetector(rules(threshold=0.1)), [0.9] * 10 + [0.0] * 40)
    assert kinds(events)[-1] is EndOfTurn


@pytest.mark.parametrize("silence", [0, 50, 100])
def test_a_silence_shorter_than_a_pause_ends_the_turn_at_once(silence: int) -> None:
    detector = TurnDetector(rules(silence_duration_ms=silence))
    events = hear(detector, [0.9] * 10 + [0.0] * 10)
    assert kinds(events) == [Onset, Pause, EndOfTurn]


def test_idleness_counts_from_the_end_of_the_assistants_speech() -> None:
    detector = TurnDetector(rules(idle_timeout_ms=1000))
    detector.idle_from(16_000)
    assert detector.clock(31_999) == []
    assert detector.clock(32_000) == [Idle(16_000)]
    assert detector.clock(32_001) == []


def test_an_eager_listener_waits_less_than_a_patient_one() -> None:
    waits = [
        TurnRules.of(SemanticVad(eagerness=eagerness)).silence_ms
        for eagerness in ("high", "medium", "low")
    ]
    assert waits == sorted(waits)
    assert len(set(waits)) == 3


@given(st.lists(st.floats(0, 1), max_size=200))
def test_every_history_is_a_legal_one(probabilities: list[float]) -> None:
    """Onset, then pauses that are resumed or end the turn, then the next onset."""
    state = "idle"
    following = {
        ("idle", Onset): "speaking",
        ("speaking", Pause): "paused",
        ("paused", Resumed): "speaking",
        ("paused", EndOfTurn): "idle",
    }
    for event in hear(TurnDetector(rules()), probabilities):
        assert (state, type(event)) in following
        state = following[state, type(event)]
