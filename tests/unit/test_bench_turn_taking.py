"""The bench of turn-taking: what its simulated clock says is what the server's own ears do."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from frontier import Point, draw
from scripted import GroupTokenizer, LoudnessVad, ScriptedJudge
from turn_taking import Heard, Outcome, two_waits, under_judge, under_silence, with_tail

from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing.speech_input import SpeechInput, TurnEnded
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.parts import input_of
from aqaa.server.protocol.session_types import ServerVad
from aqaa.server.protocol.types import PcmFormat

RATE = 16_000


def speech(*seconds: float) -> np.ndarray:
    """Sound and silence in turn, a little noise under all of it."""
    place = np.arange(round(sum(seconds) * RATE))
    wave = 0.25 * np.sign(np.sin(2 * np.pi * 100 * place / RATE))
    at = 0
    for number, one in enumerate(seconds):
        until = at + round(one * RATE)
        if number % 2:
            wave[at:until] = 0
        at = until
    noise = np.random.default_rng(0).normal(0, 1e-4, place.size)
    return np.concatenate((np.zeros(RATE // 2), wave + noise)).astype(np.float32)


def heard_by(judge: ScriptedJudge, wave: np.ndarray) -> Heard:
    return Heard.of(wave, Tokenising(GroupTokenizer()), LoudnessVad(), judge)


PAUSING = speech(0.8, 0.45, 0.8)  # a pause of 450 ms


@pytest.mark.parametrize("silence_ms", [200, 300, 400, 600, 700])
def test_a_silence_ends_a_clip_where_the_server_ends_it(silence_ms: int) -> None:
    rules = TurnRules.of(ServerVad(silence_duration_ms=silence_ms))
    wire = input_of(PcmFormat(rate=RATE))
    ears = SpeechInput(Tokenising(GroupTokenizer()), LoudnessVad(), wire, rules, 20.0)
    pcm = (with_tail(PAUSING) * 32767).astype("<i2").tobytes()
    events = [e for at in range(0, len(pcm), 640) for e in compute_alone(ears.push(pcm[at:][:640]))]
    ends = [event for event in events if isinstance(event, TurnEnded)]
    clip = heard_by(ScriptedJudge(0.0), PAUSING)
    found = under_silence(clip, silence_ms)
    if found.delay_ms is None:
        assert len(ends) == 2
    else:
        (end,) = ends
        assert found.delay_ms == (end.sample - clip.end) * 1000 / RATE
    assert (found.delay_ms is None) is (silence_ms < 450)


def test_a_judge_who_knows_the_pause_cuts_nothing_and_waits_little() -> None:
    judge = ScriptedJudge(0.1, 0.9)
    found = under_judge(heard_by(judge, PAUSING), judge, two_waits(0.5, sure_ms=225))
    assert found.delay_ms == pytest.approx(225, abs=33)


@pytest.mark.parametrize(("pause", "taken_back"), [(0.45, True), (1.35, False)])
def test_a_judge_who_is_wrong_cuts_and_a_speaker_who_goes_on_soon_is_taken_back(
    pause: float, taken_back: bool
) -> None:
    judge = ScriptedJudge(0.9, 0.1)
    found = under_judge(heard_by(judge, speech(0.8, pause, 0.8)), judge, two_waits(0.5))
    assert (found.delay_ms, found.taken_back) == (None, taken_back)


def test_the_speech_is_as_long_as_it_is() -> None:
    clip = heard_by(ScriptedJudge(0.0), PAUSING)
    assert clip.spoken_seconds == pytest.approx(2.05, abs=0.07)
    assert len(clip.chances) == 2


def test_a_turn_that_ends_in_the_last_silence_is_not_cut_whoever_told_of_it_first() -> None:
    loud, faint, quiet = (1.0, 1.0), (1.0, 1e-6), (0.0, 1e-6)
    frames = (*[loud] * 20, *[faint] * 3, *[quiet] * 40)  # a breath that is speech to the VAD
    clip = Heard(frames, (1.0,), end=23 * 512, spoken_seconds=0.7)
    found = under_judge(clip, ScriptedJudge(1.0), two_waits(0.5))
    assert found.delay_ms is not None
    assert 0 <= found.delay_ms <= 200


CLIPS = [Heard((), (), 0, seconds) for seconds in (1.0, 2.0, 3.0, 4.0)]
HALF_CUT = [Outcome(200.0), Outcome(None, taken_back=True), Outcome(400.0), Outcome(None)]


@pytest.mark.parametrize("level", [0.0, 1e-4])
def test_behind_a_clip_it_is_no_louder_than_where_it_ends(level: float) -> None:
    noise = np.random.default_rng(1).normal(0, 1, 2 * RATE)
    noise[: RATE + RATE // 2] *= 1e-2
    noise[RATE + RATE // 2 :] *= level
    tail = with_tail(noise.astype(np.float32))[2 * RATE :]
    assert tail.std() == pytest.approx(level, rel=0.1)


def test_a_policy_is_told_by_delay_false_ends_and_those_taken_back() -> None:
    cells = Point("silence", "200 ms", CLIPS, HALF_CUT).cells()
    assert cells == ["silence, 200 ms", "300 / 390", "50.0 % of 4", "50.0 % of 2", "50.0 % of 2"]


def test_the_picture_names_all_that_end_turns_and_stays_the_same_file(tmp_path: Path) -> None:
    points = [
        Point(by, "200 ms", CLIPS, outcomes)
        for by in ("silence", "a judge")
        for outcomes in (HALF_CUT, [Outcome(500.0)] * 4, [Outcome(None)] * 4)
    ]
    for name in ("one.svg", "other.svg"):
        draw({"Orders": points}, tmp_path / name)
    drawn = (tmp_path / "one.svg").read_text(encoding="utf-8")
    assert {"silence", "a judge", "Orders"} <= set(_words(drawn))
    assert drawn == (tmp_path / "other.svg").read_text(encoding="utf-8")


def _words(svg: str) -> list[str]:
    texts = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()).strip() for text in texts]
