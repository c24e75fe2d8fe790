"""Vocoders for tests: the fixtures' random weights, and what to have them say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aqaa.models.bundle import LINGUISTIC_CODES, SEMANTIC_CODES, VocoderConfig, VoicesConfig
from aqaa.vocoder.vocoder import Vocoder
from aqaa.vocoder.voices import Voice, save_voice


def tokens(groups: int, seed: int = 0) -> list[int]:
    """`groups` groups of audio tokens, any."""
    random = np.random.default_rng([seed, groups])
    linguistic = random.integers(0, LINGUISTIC_CODES, (groups, 2))
    semantic = random.integers(LINGUISTIC_CODES, LINGUISTIC_CODES + SEMANTIC_CODES, (groups, 3))
    return [int(token) for token in np.concatenate([linguistic, semantic], axis=1).reshape(-1)]


def write_voices(directory: Path, fixtures: Path, *names: str) -> VoicesConfig:
    """Voices called `names` in `directory`, of the fixtures' prompt; the first is the default."""
    directory.mkdir(parents=True, exist_ok=True)
    with np.load(fixtures / "expected" / "vocoder_stream.npz") as reference:
        for name in names:
            voice = Voice(
                name,
                torch.from_numpy(reference["prompt_token"][0]),
                torch.from_numpy(reference["prompt_feat"][0]),
                torch.from_numpy(reference["embedding"][0]),
                text="random weights have no words",
            )
            save_voice(voice, directory)
    return VoicesConfig(path=directory, default=names[0])


def checkpoint(fixtures: Path) -> Path:
    """The fixtures' vocoder directory."""
    (file,) = (fixtures / "checkpoints").glob("*/cosyvoice.yaml")
    return file.parent


def fixture_vocoder(
    directory: Path, fixtures: Path, *names: str, config: VocoderConfig | None = None
) -> Vocoder:
    """The fixtures' vocoder with voices `names`, whose files are written to `directory`."""
    path = checkpoint(fixtures)
    settings = config or VocoderConfig(path=path, steps=3, context_groups=2)
    return Vocoder.load(settings, write_voices(directory, fixtures, *(names or ("any",))))
