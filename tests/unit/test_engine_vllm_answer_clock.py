"""How long an answer waits, by a clock that the test turns."""

from __future__ import annotations

import pytest

from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm.answer_clock import AnswerClock, SoundInHand

SETTINGS = VllmHttpSettings(
    first_id_within=1.5, next_id_within=1.0, probe_after=0.5, give_up_after=1.5
)
AUDIO = 1000  # the first audio id


class Time:
    """What `time.monotonic` would say."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def sound(time: Time) -> SoundInHand:
    return SoundInHand(AUDIO, time)


@pytest.fixture
def clock(sound: SoundInHand, time: Time) -> AnswerClock:
    return AnswerClock(SETTINGS, sound, time)


def test_a_first_id_may_take_longer_for_a_longer_prompt(clock: AnswerClock, time: Time) -> None:
    clock.connect(4000)
    time.passes(3.4)
    assert not clock.stream_is_silent
    time.passes(0.2)
    assert clock.stream_is_silent


def test_a_healthy_server_does_not_make_a_silent_stream_speak(
    clock: AnswerClock, time: Time
) -> None:
    clock.connect(10)
    clock.ids()
    time.passes(0.9)
    clock.life()
    assert not clock.server_is_silent
    time.passes(0.1)
    assert clock.stream_is_silent


def test_the_watchdog_sleeps_until_something_may_be_late(clock: AnswerClock, time: Time) -> None:
    clock.connect(10)
    clock.ids()
    assert clock.next_check == pytest.approx(0.5)
    time.passes(0.6)
    assert clock.server_is_silent
    clock.life()
    assert clock.next_check == pytest.approx(0.4), "the stream's own bound"


def test_a_server_that_is_gone_is_given_up_after_one_more_connection(
    clock: AnswerClock, time: Time
) -> None:
    clock.connect(10)
    clock.ids()
    time.passes(5)
    clock.lost(silent=False)
    assert not clock.is_hopeless(0.05), "nothing was tried anew"
    clock.connect(11)
    clock.lost(silent=False)
    assert clock.is_hopeless(0.05)


def test_a_hung_decoder_is_given_up_though_its_server_lives(clock: AnswerClock, time: Time) -> None:
    clock.connect(10)
    clock.ids()
    for _ in range(2):
        time.passes(1.0)
        clock.life()
        clock.lost(silent=True)
        hopeless = clock.is_hopeless(0.05)
        clock.connect(11)
        clock.responded()
    assert hopeless


def test_a_server_that_begins_answers_and_breaks_them_off_is_given_up(
    clock: AnswerClock, time: Time
) -> None:
    for _ in range(2):
        clock.connect(10)
        time.passes(1.0)
        clock.responded()
        clock.lost(silent=False)
    assert clock.is_hopeless(0.05)


def test_sound_that_is_not_played_yet_is_time_to_come_back(
    clock: AnswerClock, sound: SoundInHand, time: Time
) -> None:
    clock.connect(10)
    clock.ids()
    sound.add([AUDIO] * 100)  # 2.4 s
    sound.add([5] * 100)  # text is no sound
    clock.lost(silent=False)
    clock.connect(210)
    time.passes(3.8)
    assert not clock.is_hopeless(0.05)
    time.passes(0.1)
    assert clock.is_hopeless(0.05)
