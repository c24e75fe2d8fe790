"""Silero's model from its wheel: it tells speech from silence, without its package's imports."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from scripted import GroupTokenizer

from aqaa.models.errors import NoSpeechError
from aqaa.server.audio.files import read_audio
from aqaa.server.audio.wire import AudioFormat, encode
from aqaa.server.compute.model import Call, Work, compute_alone
from aqaa.server.hearing.no_speech import SpeechProbability, check_speech
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.hearing.vad import (
    CALL_SAMPLES,
    CONTEXT_SAMPLES,
    FRAME_SAMPLES,
    MAX_BATCH,
    STATE_SHAPE,
    VadFrames,
    VadModel,
    VadResult,
    wheel_file,
)
from aqaa.server.parts import input_of
from aqaa.server.protocol.session_types import ServerVad
from aqaa.server.protocol.types import PcmFormat

EXAMPLES = Path(__file__).parents[2] / "models" / "nano" / "examples"
Samples = NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> VadModel:
    return VadModel.load()


@pytest.fixture(scope="module")
def speech() -> Samples:
    """Questions with their quiet between them, in whole frames."""
    wave = np.concatenate([read_audio(file) for file in sorted(EXAMPLES.glob("*.flac"))])
    return wave[: 12 * CALL_SAMPLES]


def probabilities(model: VadModel, wave: Samples, frames: int = 1) -> list[float]:
    """Of each whole frame, so many a call."""
    stream, size = model.stream(), frames * FRAME_SAMPLES
    whole = wave[: wave.size // FRAME_SAMPLES * FRAME_SAMPLES]
    calls = (whole[at : at + size] for at in range(0, whole.size, size))
    return [one for call in calls for one in compute_alone(stream.push(call))]


def test_recorded_speech_is_speech(model: VadModel, fixtures_dir: Path) -> None:
    for file in sorted((fixtures_dir / "wavs").glob("*.wav")):
        heard = probabilities(model, read_audio(file)[: 16_000 * 5])
        assert np.mean(np.array(heard) > 0.5) > 0.4, file.name


def test_silence_and_noise_are_not(model: VadModel) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 32_000).astype(np.float32)
    assert max(probabilities(model, np.zeros(32_000, np.float32))) < 0.3
    assert max(probabilities(model, noise)) < 0.5


def test_streams_do_not_hear_each_other(model: VadModel, speech: Samples) -> None:
    first, second = speech[:CALL_SAMPLES], speech[CALL_SAMPLES : 2 * CALL_SAMPLES]
    a, b = model.stream(), model.stream()
    both = [
        (compute_alone(a.push(one)), compute_alone(b.push(other)))
        for one, other in zip(
            first.reshape(-1, FRAME_SAMPLES), second.reshape(-1, FRAME_SAMPLES), strict=True
        )
    ]
    assert [x for (x,), _ in both] == probabilities(model, first)
    assert [y for _, (y,) in both] == probabilities(model, second)


@pytest.mark.parametrize("frames", [2, 3, 7, CALL_SAMPLES // FRAME_SAMPLES])
def test_frames_in_one_call_are_judged_as_each_alone(
    model: VadModel, speech: Samples, frames: int
) -> None:
    assert probabilities(model, speech, frames) == probabilities(model, speech)


@pytest.mark.parametrize(
    "lengths", [[1, 1], [3] * 8, [1, 4, 2, 31, 3], [1 + n % 4 for n in range(MAX_BATCH)]], ids=str
)
def test_frames_of_a_stream_in_a_batch_are_judged_as_alone(
    model: VadModel, lengths: list[int]
) -> None:
    rng = np.random.default_rng(len(lengths))
    calls = [
        VadFrames(
            rng.normal(0, 0.1, (length, CONTEXT_SAMPLES + FRAME_SAMPLES)).astype(np.float32),
            rng.normal(0, 0.3, STATE_SHAPE).astype(np.float32),
        )
        for length in lengths
    ]
    for asked, together in zip(calls, model.model.run(calls), strict=True):
        (alone,) = model.model.run([asked])
        assert isinstance(together, VadResult)
        assert isinstance(alone, VadResult)
        assert together.probabilities == alone.probabilities
        assert np.array_equal(together.state, alone.state)


def test_frames_are_judged_as_by_the_published_network_that_takes_one(
    model: VadModel, speech: Samples
) -> None:
    one_frame = onnxruntime.InferenceSession(
        str(wheel_file("silero_vad.onnx")), providers=["CPUExecutionProvider"]
    )
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT_SAMPLES, np.float32)
    told = []
    for frame in speech.reshape(-1, FRAME_SAMPLES):
        samples = np.concatenate((context, frame))[None]
        inputs = {"input": samples, "state": state, "sr": np.array(16_000, np.int64)}
        probability, state = one_frame.run(None, inputs)
        context = frame[-CONTEXT_SAMPLES:]
        told.append(float(probability[0, 0]))
    assert probabilities(model, speech, 3) == pytest.approx(told, abs=1e-5)


class FrameByFrame:
    """A VAD stream that asks about one frame at a time."""

    def __init__(self, model: VadModel) -> None:
        self._stream = model.stream()

    def push(self, samples: Samples) -> Work[list[float]]:
        told: list[float] = []
        for frame in samples.reshape(-1, FRAME_SAMPLES):
            told += yield from self._stream.push(frame)
        return told


@pytest.mark.parametrize("append", [137, 320, 1600, 12_345, 40_000])
def test_a_turn_is_the_same_whether_its_frames_are_asked_about_together_or_one_by_one(
    model: VadModel, speech: Samples, append: int
) -> None:
    wire, rules = input_of(PcmFormat(rate=16_000)), TurnRules.of(ServerVad())
    data = encode(np.concatenate((speech, np.zeros(16_000, np.float32))), AudioFormat(rate=16_000))

    def heard(vad: SpeechProbability) -> list[str]:
        ears = SpeechInput(Tokenising(GroupTokenizer()), vad, wire, rules, 20.0)
        told: list[object] = []
        for number, at in enumerate(range(0, len(data), 2 * append)):
            told += compute_alone(ears.push(data[at : at + 2 * append]))
            if number == 50_000 // append:
                told.append(compute_alone(ears.commit()))
            elif number == 85_000 // append:
                ears.configure(input_of(PcmFormat(rate=16_000)), rules)
            elif number == 125_000 // append:
                ears.clear()
        return list(map(repr, told))

    together = heard(model.stream())
    assert any("TurnEnded" in one for one in together)
    assert together == heard(FrameByFrame(model))


def test_all_frames_that_an_append_completes_are_one_call(model: VadModel) -> None:
    asked: list[Call] = []

    def counted(work: Work[object]) -> Work[None]:
        call = next(work)
        while True:
            asked.append(call)
            call = work.send((yield call))

    wire, rules = input_of(PcmFormat(rate=16_000)), TurnRules.of(ServerVad())
    ears = SpeechInput(Tokenising(GroupTokenizer()), model.stream(), wire, rules, 20.0)
    for _ in range(10):
        with suppress(RuntimeError):  # the work is over
            compute_alone(counted(ears.push(bytes(2 * 1600))))
    assert [len(call.value.frames) for call in asked] == [3] * 7 + [4] + [3] * 2


def test_a_recording_in_which_nobody_speaks_is_judged_a_second_a_call(model: VadModel) -> None:
    calls = 0

    def counted() -> Work[None]:
        nonlocal calls
        work = check_speech(model.stream(), np.zeros(16_000 * 20 + 7, np.float32))
        call = next(work)
        while True:
            calls += 1
            call = work.send((yield call))

    with pytest.raises(NoSpeechError, match="nobody speaks in these 20"):
        compute_alone(counted())
    assert calls == 21  # a call is 31 frames, 0.992 s


def test_the_package_of_the_wheel_is_not_imported() -> None:
    code = (
        "import sys; from aqaa.server.hearing.vad import VadModel; VadModel.load();"
        "sys.exit('silero_vad' in sys.modules or 'torchaudio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
