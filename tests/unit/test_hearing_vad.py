"""Silero's model from its wheel: it tells speech from silence, without its package's imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from aqaa.server.audio.files import read_audio
from aqaa.server.hearing.vad import FRAME_SAMPLES, VadModel


@pytest.fixture(scope="module")
def model() -> VadModel:
    return VadModel.load()


def probabilities(model: VadModel, wave: NDArray[np.float32]) -> list[float]:
    stream = model.stream()
    return [
        stream.push(wave[at : at + FRAME_SAMPLES])
        for at in range(0, wave.size - FRAME_SAMPLES, FRAME_SAMPLES)
    ]


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
        (a.push(first[at : at + FRAME_SAMPLES]), b.push(second[at : at + FRAME_SAMPLES]))
        for at in range(0, 15_000 - FRAME_SAMPLES, FRAME_SAMPLES)
    ]
    assert [x for x, _ in both] == probabilities(model, first[:15_000])
    assert [y for _, y in both] == probabilities(model, second[:15_000])


def test_the_package_of_the_wheel_is_not_imported() -> None:
    code = (
        "import sys; from aqaa.server.hearing.vad import VadModel; VadModel.load();"
        "sys.exit('silero_vad' in sys.modules or 'torchaudio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
