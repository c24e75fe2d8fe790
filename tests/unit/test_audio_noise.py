"""The noise of a microphone is taken out where that is asked for, and what is said is left."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from live_talk import FakeClock, Talk
from numpy.typing import NDArray
from scripted import scripted_parts

from aqaa.models.bundle import nano_path
from aqaa.server.audio.noise import NoiseFilter
from aqaa.server.audio.wire import AudioFormat, InputConverter
from aqaa.server.parts import noise_level
from aqaa.server.protocol.session_types import NoiseReduction

RATE = 16_000
Samples = NDArray[np.float32]


def noise(seconds: float, level: float = 0.02) -> Samples:
    draw = np.random.default_rng(7).standard_normal(round(seconds * RATE))
    return (level * draw).astype(np.float32)


def filtered(samples: Samples, level: int) -> Samples:
    one = NoiseFilter(level)
    return np.concatenate([one.push(samples), one.flush()])


def decibels(samples: Samples) -> float:
    return float(10 * np.log10(np.mean(samples**2)))


def test_steady_noise_falls_the_more_the_stronger_the_filter() -> None:
    heard = noise(4.0)
    left = [decibels(filtered(heard, level)[2 * RATE :]) for level in (1, 2, 4)]
    assert left == sorted(left, reverse=True)
    assert left[0] < decibels(heard[2 * RATE :]) - 3
    assert left[-1] < decibels(heard[2 * RATE :]) - 12


def test_speech_in_noise_stands_out_more() -> None:
    (path, *_) = sorted((nano_path() / "examples").glob("*.flac"))
    wave, rate = soundfile.read(path, dtype="float32")
    speech = soxr.resample(wave, rate, RATE)
    before = noise(2.0, level=float(speech.std()) / 3)
    heard = np.concatenate([before, speech + noise(speech.size / RATE)[: speech.size]])
    clean = filtered(heard, 4)
    gained = [decibels(x[before.size :]) - decibels(x[RATE : before.size]) for x in (heard, clean)]
    assert gained[1] > gained[0] + 6
    assert decibels(clean[before.size :]) > decibels(heard[before.size :]) - 6


@given(cuts=st.lists(st.integers(0, 9_000), max_size=20))
@settings(max_examples=25)
def test_the_cutting_of_a_filtered_stream_leaves_no_trace_and_loses_no_sample(
    cuts: list[int],
) -> None:
    data = (noise(9_000 / RATE) * 32767).astype("<i2").tobytes()
    once = InputConverter(AudioFormat("pcm16", RATE), 2)
    whole = np.concatenate([once.push(data), once.flush()])
    converter = InputConverter(AudioFormat("pcm16", RATE), 2)
    parts = []
    for begin, end in pairwise([0, *sorted(cuts), 9_000]):
        parts.append(converter.push(data[2 * begin : 2 * end]))
        assert converter.samples_out + converter.pending == converter.samples_in
    np.testing.assert_array_equal(np.concatenate([*parts, converter.flush()]), whole)
    assert whole.size == converter.samples_out == 9_000


@pytest.mark.parametrize(
    ("wanted", "level"),
    [
        (None, 0),
        (NoiseReduction(), 2),
        (NoiseReduction(type="near_field"), 2),
        (NoiseReduction(type="far_field"), 4),
        (NoiseReduction(type="far_field", strength=0.5), 2),
        (NoiseReduction(strength=0.5), 1),
        (NoiseReduction(type="far_field", strength=0.0), 0),
    ],
)
def test_a_distant_microphone_is_filtered_more_than_a_near_one(
    wanted: NoiseReduction | None, level: int
) -> None:
    assert noise_level(wanted) == level


async def turns_begun(reduction: object) -> int:
    """How many turns a room of steady noise begins, once the filter has had two seconds of it."""
    clock = FakeClock()
    talk = Talk(scripted_parts(clock=clock), clock)
    listening = {"noise_reduction": reduction, "turn_detection": None}
    await talk.send("session.update", session={"audio": {"input": listening}})
    hiss = np.clip(soxr.resample(noise(2.0, level=0.1), RATE, 24_000), -1, 1)
    sound = (hiss * 32767).astype("<i2").tobytes()
    await talk.append(sound)
    detection = {"turn_detection": {"type": "server_vad"}}
    await talk.send("session.update", session={"audio": {"input": detection}})
    await talk.append(sound)
    await talk.send("input_audio_buffer.commit")  # which waits until all sound before it is heard
    await talk.close()
    return sum(event.type == "input_audio_buffer.speech_started" for event in talk.events)


async def test_a_noisy_room_begins_no_turn_where_noise_is_reduced() -> None:
    assert await turns_begun({"type": "far_field"}) == 0
    assert await turns_begun(None) == 1, "or the filter is not what kept it quiet"
