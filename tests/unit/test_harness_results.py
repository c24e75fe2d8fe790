"""What `make harness` reads out of other people's harnesses, and where it writes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from harnesses import BEGIN, END, PAGE, heard_in, voicebench, written
from question_sets import (
    BBA_RATE,
    BBA_REVISION,
    BBA_SPEED,
    Clip,
    Sound,
    by_name,
    clips,
    write_big_bench_audio,
    write_clips,
)

from aqaa.clients.client import WIRE_RATE
from aqaa.clients.replay import clips_in

SECONDS = 8


def sounding(*spans: tuple[float, float]) -> Sound:
    """Silence of `SECONDS` but in these spans of seconds."""
    wave = np.zeros(SECONDS * WIRE_RATE, np.float32)
    for begin, end in spans:
        wave[round(begin * WIRE_RATE) : round(end * WIRE_RATE)] = 0.3
    return wave


def test_an_answer_is_timed_from_the_questions_end() -> None:
    clip = Clip(sounding((0, 2)), 2.0)
    assert heard_in(clip, sounding((3, 5))) == ("no", 1000, None, None)
    assert heard_in(clip, sounding((1.5, 5))) == ("yes", 0, None, None)
    assert heard_in(clip, sounding()) == ("no", None, None, None)


def test_a_stop_is_timed_from_the_users_cutting_in() -> None:
    clip = Clip(sounding((0, 1), (4, 5)), 1.0, cut_in=4.0)
    early, latency, stopped, again = heard_in(clip, sounding((2, 4.2), (6, 7)))
    assert (early, latency, stopped) == ("no", 1000, 200)
    assert again == pytest.approx(1800)


def test_a_pause_between_two_words_is_no_stop() -> None:
    clip = Clip(sounding((0, 1), (4, 5)), 1.0, cut_in=4.0)
    assert heard_in(clip, sounding((2, 4.2), (4.5, 8)))[2:] == (None, None)


def test_who_is_cut_into_between_two_words_had_not_stopped() -> None:
    clip = Clip(sounding((0, 1), (4, 5)), 1.0, cut_in=4.0)
    assert heard_in(clip, sounding((2, 3.9), (4.1, 4.4)))[2:] == (400, None)
    assert heard_in(clip, sounding((2, 3.9), (6, 7)))[2:] == (0, 2000)
    assert heard_in(clip, sounding((2, 3.2), (6, 7)))[2:] == ("was silent", 2000)


def test_the_clips_are_in_the_folders_that_the_replay_looks_for(tmp_path: Path) -> None:
    write_clips(tmp_path)
    assert [str(clip.parent.relative_to(tmp_path)) for clip in clips_in(tmp_path)] == sorted(
        clips()
    )


def test_big_bench_audio_sends_the_wires_samples_in_real_time(tmp_path: Path) -> None:
    """Its runner takes a header of 16 kHz for the truth, and sends the samples unchanged."""
    manifest, hub = write_big_bench_audio(tmp_path)
    items = json.loads(manifest.read_text(encoding="utf-8"))["items"]
    folder = hub / "datasets--aqaa--nano-examples" / "snapshots" / BBA_REVISION
    plain = by_name()["2-minus-alpha"]
    wave, rate = soundfile.read(folder / items[0]["file_name"], dtype="float32")
    assert (wave.size, rate) == (plain.size, BBA_RATE)
    assert wave.size / rate / BBA_SPEED == pytest.approx(plain.size / WIRE_RATE)
    assert [item["official_answer"] for item in items] == ["1", "1", "12", "12"]


def test_results_are_written_between_their_marks_and_no_further() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert (page.count(BEGIN), page.count(END)) == (1, 1)
    again = written(written(page, "old"), "new")
    assert f"{BEGIN}\nnew\n{END}" in again
    assert again.partition(BEGIN)[0] == page.partition(BEGIN)[0]
    assert again.partition(END)[2] == page.partition(END)[2]


def test_a_harness_that_cannot_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harnesses.WORK", tmp_path)
    with pytest.raises(RuntimeError, match="no session at"):
        voicebench("http://127.0.0.1:9")
