"""Voices: files that are checked before anybody speaks with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scripted import bundle
from tiny_vocoder import checkpoint, tiny_vocoder, tokens, write_voices

from aqaa.models.bundle import VocoderConfig, VoicesConfig
from aqaa.models.errors import AudioError, BundleError, UnknownVoiceError
from aqaa.vocoder.config import CosyVoiceConfig, load_config
from aqaa.vocoder.vocoder import Vocoder
from aqaa.vocoder.voices import (
    Voice,
    check_markers,
    load_voice,
    load_voices,
    make_voice,
    save_voice,
)


@pytest.fixture
def config(fixtures_dir: Path) -> CosyVoiceConfig:
    return load_config(checkpoint(fixtures_dir) / "cosyvoice.yaml")


@pytest.fixture
def voice(tmp_path: Path, fixtures_dir: Path, config: CosyVoiceConfig) -> Voice:
    write_voices(tmp_path, fixtures_dir, "kim")
    return load_voice(tmp_path / "kim.safetensors", config)


def test_voices_are_listed_by_name(
    tmp_path: Path, fixtures_dir: Path, config: CosyVoiceConfig
) -> None:
    write_voices(tmp_path, fixtures_dir, "zoe", "ada")
    assert list(load_voices(tmp_path, config)) == ["ada", "zoe"]


def test_a_voice_comes_back_as_it_was_saved(
    tmp_path: Path, voice: Voice, config: CosyVoiceConfig
) -> None:
    told = replace(voice, name="lee", text="hello", description="calm", license="CC0")
    again = load_voice(save_voice(told, tmp_path), config)
    assert (again.name, again.text, again.description, again.license) == (
        "lee", "hello", "calm", "CC0",
    )  # fmt: skip
    assert torch.equal(again.mel, voice.mel)
    assert torch.equal(again.tokens, voice.tokens)


def test_a_marker_of_a_voice_that_the_bundle_lacks_is_named_before_anybody_hears_it() -> None:
    check_markers(bundle(), ["amy", "joe"])
    with pytest.raises(BundleError, match=r"voice_markers names amy, but the voices are: joe"):
        check_markers(bundle(), ["joe"])


def test_the_error_for_an_unknown_voice_lists_the_known_ones() -> None:
    vocoder = tiny_vocoder(VocoderConfig(path=Path()), "zoe", "ada")
    with pytest.raises(UnknownVoiceError, match=r"'bob'.*ada, zoe"):
        vocoder.stream("bob")


def test_a_default_that_is_no_voice_is_an_error_of_the_bundle(
    tmp_path: Path, fixtures_dir: Path
) -> None:
    write_voices(tmp_path, fixtures_dir, "ada")
    settings = VocoderConfig(path=checkpoint(fixtures_dir))
    with pytest.raises(BundleError, match=r"'bob'.*ada"):
        Vocoder.load(settings, VoicesConfig(path=tmp_path, default="bob"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"mel": torch.zeros(10, 40)}, "mel must be"),
        ({"mel": torch.full((10, 80), torch.nan)}, "finite"),
        ({"embedding": torch.zeros(17)}, "embedding must be"),
        ({"tokens": torch.tensor([1, 2, 3, 4, 5])}, "out of phase"),
        ({"tokens": torch.zeros(0, dtype=torch.long)}, "one group or more"),
    ],
)
def test_a_voice_that_does_not_fit_is_refused(
    tmp_path: Path, voice: Voice, config: CosyVoiceConfig, change: dict[str, object], complaint: str
) -> None:
    path = save_voice(replace(voice, name="odd", **change), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=complaint):
        load_voice(path, config)


def test_a_damaged_file_is_named(tmp_path: Path, config: CosyVoiceConfig) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(BundleError, match=r"bad\.safetensors"):
        load_voices(tmp_path, config)


def test_a_directory_without_voices_is_an_error(tmp_path: Path, config: CosyVoiceConfig) -> None:
    with pytest.raises(BundleError, match="no voice"):
        load_voices(tmp_path, config)


def test_a_recording_too_short_for_a_voice_is_refused(
    tmp_path: Path, fixtures_dir: Path, config: CosyVoiceConfig
) -> None:
    campplus = checkpoint(fixtures_dir) / "campplus.onnx"
    with pytest.raises(AudioError, match="longer than 25 ms"):
        make_voice(
            "kim", np.zeros(300, np.float32), 16_000, lambda heard: tokens(1), config, campplus
        )


def test_a_file_that_is_no_speaker_encoder_is_named(
    tmp_path: Path, config: CosyVoiceConfig
) -> None:
    campplus = tmp_path / "campplus.onnx"
    campplus.write_bytes(b"not a network")
    with pytest.raises(BundleError, match=r"campplus\.onnx is no CAM"):
        make_voice(
            "kim", np.zeros(16_000, np.float32), 16_000, lambda heard: tokens(1), config, campplus
        )
