"""Replaying recordings: what was heard, in step with what was said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripted import ScriptedEngine, pcm, woven
from scripted_server import serving

from aqaa.clients.client import WIRE_RATE, connect
from aqaa.clients.replay import INPUT, OUTPUT, Playout, clips_in, replay

ONES = np.ones(1000, np.float32)


def test_sound_is_played_when_it_comes_or_behind_what_waits() -> None:
    playout = Playout(10_000)
    playout.play("a", ONES, 2000)
    playout.play("a", ONES, 2100)
    playout.play("a", ONES, 6000)
    assert np.flatnonzero(playout.played).tolist() == [*range(2000, 4000), *range(6000, 7000)]


def test_what_waits_is_dropped_and_what_was_heard_is_told() -> None:
    playout = Playout(100_000)
    for _ in range(4):
        playout.play("a", np.ones(WIRE_RATE // 4, np.float32), 0)
    assert playout.cut(WIRE_RATE // 2) == ("a", 500)
    assert np.count_nonzero(playout.played) == WIRE_RATE // 2
    assert playout.cut(WIRE_RATE // 2) is None
    playout.play("b", ONES, WIRE_RATE)
    assert playout.cut(WIRE_RATE + 240) == ("b", 10)


def test_what_would_be_played_after_the_recording_is_left_out() -> None:
    playout = Playout(1500)
    playout.play("a", ONES, 1000)
    playout.play("a", ONES, 1100)
    assert playout.played.size == 1500
    assert playout.played[1000:].all()


def test_only_clips_that_were_not_heard_yet_are_replayed(tmp_path: Path) -> None:
    for name in ("task/1", "task/2"):
        (tmp_path / name).mkdir(parents=True)
        soundfile.write(tmp_path / name / INPUT, ONES, WIRE_RATE)
    soundfile.write(tmp_path / "task/1" / OUTPUT, ONES, WIRE_RATE)
    assert clips_in(tmp_path) == [tmp_path / "task/2" / INPUT]


@pytest.mark.parametrize("interrupted", [False, True])
async def test_the_answer_stands_behind_the_question_and_ends_where_it_is_spoken_into(
    interrupted: bool,
) -> None:
    said = pcm(0.5, loud=True) + pcm(2.5, loud=False)
    said += pcm(0.5, loud=interrupted) + pcm(0.4, loud=False)
    wave = np.frombuffer(said, "<i2").astype(np.float32) / 32768
    engine = ScriptedEngine(answer=lambda prompt: woven("a long answer", 60))
    async with serving(engine) as served, connect(served.http) as server:
        heard = await replay(server, wave)
    assert heard.size == wave.size
    sounding = np.abs(heard).reshape(-1, WIRE_RATE // 10).max(axis=1) > 0  # in each 100 ms
    assert not sounding[:9].any()  # the question, and the silence that ends it
    assert sounding[25:29].all()
    assert sounding[35:].any() != interrupted
