"""Silero's model from its wheel: it tells speech from silence, without its package's imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aqaa.models.errors import NoSpeechError
from aqaa.server.audio.files import read_audio
from aqaa.server.compute.model import Work, compute_alone
from aqaa.server.hearing.no_speech import check_speech
from aqaa.server.hearing.vad import (
    CONTEXT_SAMPLES,
    FRAME_SAMPLES,
    STATE_SHAPE,
    VadFrame,
    VadModel,
    VadResult,
)


@pytest.fixture(scope="module")
def model() -> VadModel:
    return VadModel.load()


def probabilities(model: VadModel, wave: NDArray[np.float32]) -> list[float]:
    stream = model.stream()
    return [
        compute_alone(stream.push(wave[at : at + FRAME_SAMPLES]))
        for at in range(0, wave.size - FRAME_SAMPLES, FRAME_SAMPLES)
    ]


def frames_of(wave: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [wave[at : at + FRAME_SAMPLES] for at in range(0, 15_000 - FRAME_SAMPLES, FRAME_SAMPLES)]


def test_recorded_speech_is_speech(model: VadModel, fixtures_dir: Path) -> None:
    for file in sorted((fixtures_dir / "wavs").glob("*.wav")):
        heard = probabilities(model, read_audio(file)[: 16_000 * 5])
        assert np.mean(np.array(heard) > 0.5) > 0.4, file.name


def test_silence_and_noise_are_not(model: VadModel) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 32_000).astype(np.float32)
    assert max(probabilities(model, np.zeros(32_000, np.float32))) < 0.3
    assert max(probabilities(model, noise)) < 0.5


def test_streams_do_not_hear_each_other(model: VadModel, fixtures_dir: Path) -> None:
    first, second = (
        read_audio(file)[:16_000] for file in sorted((fixtures_dir / "wavs").glob("*.wav"))[:2]
    )
    a, b = model.stream(), model.stream()
    both = [
        (compute_alone(a.push(one)), compute_alone(b.push(other)))
        for one, other in zip(frames_of(first), frames_of(second), strict=True)
    ]
    assert [x for x, _ in both] == probabilities(model, first[:15_000])
    assert [y for _, y in both] == probabilities(model, second[:15_000])


@pytest.mark.parametrize("size", [2, 3, 8, 64])
def test_a_frame_in_a_batch_is_judged_as_it_is_alone(model: VadModel, size: int) -> None:
    rng = np.random.default_rng(size)
    frames = [
        VadFrame(
            rng.normal(0, 0.1, CONTEXT_SAMPLES + FRAME_SAMPLES).astype(np.float32),
            rng.normal(0, 0.3, STATE_SHAPE).astype(np.float32),
        )
        for _ in range(size)
    ]
    for frame, together in zip(frames, model.model.run(frames), strict=True):
        (alone,) = model.model.run([frame])
        assert isinstance(together, VadResult)
        assert isinstance(alone, VadResult)
        assert together.probability == alone.probability
        assert np.array_equal(together.state, alone.state)


def test_a_recording_in_slices_is_judged_as_frame_by_frame(
    model: VadModel, fixtures_dir: Path
) -> None:
    wave = read_audio(min((fixtures_dir / "wavs").glob("*.wav")))[: 90 * FRAME_SAMPLES]
    alone = probabilities(model, np.append(wave, 0.0).astype(np.float32))
    stream, frames = model.stream(), 40
    highest = [
        compute_alone(stream.highest(wave[at : at + frames * FRAME_SAMPLES]))
        for at in range(0, wave.size, frames * FRAME_SAMPLES)
    ]
    assert highest == [max(alone[:40]), max(alone[40:80]), max(alone[80:])]


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
    assert calls == 21  # a second is 31 frames and a quarter


def test_the_package_of_the_wheel_is_not_imported() -> None:
    code = (
        "import sys; from aqaa.server.hearing.vad import VadModel; VadModel.load();"
        "sys.exit('silero_vad' in sys.modules or 'torchaudio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
