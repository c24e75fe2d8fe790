"""Our adapter for eot-bench against the real gateway with scripted models."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
from eot_bench_realtime import RealtimeAdapter, scored, sound_of
from scripted import ScriptedEngine, ScriptedJudge, pcm, scripted_parts
from scripted_server import serving_parts

RATE = 16_000  # the data's
STEP = 0.1  # seconds, eot-bench's


def turn(*pieces: tuple[float, bool]) -> dict[str, Any]:
    """A row of eot-bench's data: seconds of speech and of silence, as a file."""
    wave = b"".join(pcm(seconds, loud=loud, rate=RATE) for seconds, loud in pieces)
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(wave, "<i2"), RATE, format="WAV")
    spans, at = [], 0.0
    for seconds, loud in pieces:
        spans += [] if loud else [{"start": at, "end": at + seconds}]
        at += seconds
    audio = {"bytes": file.getvalue()}
    return {"id": "t1", "language": "en", "audio": audio, "silence_spans": spans}


async def test_a_pause_that_is_waited_for_scores_nothing_and_the_turns_end_scores_from_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = ScriptedEngine()
    parts = scripted_parts(engine, judge=ScriptedJudge(0.05, 0.95))
    async with serving_parts(parts, engine, api_keys=["right"]) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.http}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        adapter = RealtimeAdapter(speed=20)
        adapter.model = "scripted"
        row = turn((1.0, True), (0.7, False), (0.8, True), (1.5, False))
        said = await adapter.predict_turn(row, inference_interval=STEP)
    assert engine.prompts == []
    assert (said["id"], said["audio_sec"]) == ("t1", pytest.approx(4.0))
    ((end,), rows) = ([one["timestamp"] for one in said["events"]], said["prediction_rows"])
    assert end == pytest.approx(2.5 + 0.225, abs=0.05)
    assert {one["p_eot"] for one in rows if one["label"] == "hold"} == {0.0}
    last = [one for one in rows if one["label"] == "eot"]
    assert [one["p_eot"] for one in last] == [float(one["timestamp"] >= end) for one in last]


async def test_what_the_server_refuses_ends_the_turn_with_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = ScriptedEngine()
    async with serving_parts(scripted_parts(engine), engine) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{served.http}/v1")
        monkeypatch.setenv("EAGERNESS", "hasty")
        with pytest.raises(RuntimeError, match="eagerness"):
            await RealtimeAdapter().predict_turn(turn((1.0, True)), inference_interval=STEP)


def test_each_silence_is_scored_from_its_beginning_to_its_end() -> None:
    row = turn((1.0, True), (0.05, False), (0.5, True), (0.25, False), (0.5, True), (0.2, False))
    rows = scored(row, [1.7], STEP)
    assert [(one["span_index"], one["silence_dur"], one["p_eot"]) for one in rows] == [
        (1, 0.0, 0.0),
        (1, 0.1, 0.0),
        (1, 0.2, 1.0),
        (1, 0.25, 1.0),
        (2, 0.0, 0.0),
        (2, 0.1, 0.0),
        (2, 0.2, 0.0),
    ]
    assert [one["label"] for one in rows] == ["hold"] * 4 + ["eot"] * 3


def test_sound_of_two_channels_or_as_numbers_is_heard_too() -> None:
    both = {"array": np.ones((RATE, 2)), "sampling_rate": RATE}
    assert sound_of(both).size == 24_000
