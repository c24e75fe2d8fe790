"""`aqaa voice`: a recording becomes a voice that the bundle speaks with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from bundles import fixture_bundle
from tiny_vocoder import tokens
from typer.testing import CliRunner

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.errors import AudioError, BundleError, InputError
from aqaa.server.cli.voice import voice
from aqaa.vocoder.vocoder import Vocoder

RECORDING = "ex_prompt_lixueqin"


@pytest.fixture
def bundle(fixtures_dir: Path, tmp_path: Path) -> Path:
    return fixture_bundle(tmp_path / "bundle", fixtures_dir)


def run(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(voice)
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_a_recording_becomes_a_voice_as_the_published_prompts_do(
    bundle: Path, fixtures_dir: Path
) -> None:
    recording = fixtures_dir / "wavs" / f"{RECORDING}.wav"
    shown = run(recording, "li", "--bundle", bundle, "--text", "hello", "--license", "CC0")
    assert "li.safetensors" in shown
    model = load_bundle(bundle)
    vocoder = Vocoder.load(model.vocoder, model.voices.model_copy(update={"default": "li"}))
    made = vocoder.voices["li"]
    with np.load(fixtures_dir / "expected" / "tokens.npz") as expected:
        trimmed = expected[f"{RECORDING}/trim_ids"] - model.tokens.audio_offset
    assert made.tokens.tolist() == trimmed.tolist()
    assert (made.text, made.license) == ("hello", "CC0")
    stream = vocoder.stream("li")
    stream.push(tokens(2))
    assert len(stream.flush()) > 0


@pytest.mark.parametrize("name", ["", "../li", "a/b", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / "me.wav", np.zeros(16_000), 16_000)
    with pytest.raises(InputError, match="cannot be a voice's name"):
        run(tmp_path / "me.wav", name, "--bundle", bundle)


def test_a_recording_too_long_for_a_prompt_is_refused(bundle: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros(16_000 * 31), 16_000)
    with pytest.raises(AudioError, match=r"talk\.wav is 31 seconds long; at most 30"):
        run(tmp_path / "talk.wav", "li", "--bundle", bundle)


def test_a_bundle_without_a_speaker_encoder_says_so(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "me.wav", np.full(16_000, 0.1), 16_000)
    with pytest.raises(BundleError, match=r"campplus\.onnx"):
        run(tmp_path / "me.wav", "me", "--bundle", nano_path())
