"""Vocoders for tests: the fixtures' and one smaller still, and what to have them say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from aqaa.models.bundle import VocoderConfig, VoicesConfig
from aqaa.models.groups import LINGUISTIC_CODES, SEMANTIC_CODES
from aqaa.vocoder.config import CosyVoiceConfig
from aqaa.vocoder.flow import Flow
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.state import Grid
from aqaa.vocoder.stream import ChunkSynthesiser
from aqaa.vocoder.vocoder import Vocoder
from aqaa.vocoder.voices import Voice, save_voice

# The published architecture with as little in it as it allows, for tests of what does not depend
# on the sound: 80 mels, 256 samples a frame, one block of everything.
TINY: dict[str, Any] = {
    "flow": {
        "input_size": 8,
        "output_size": 80,
        "spk_embed_dim": 192,
        "vocab_size": 5121,
        "input_frame_rate": 125 / 3,
        "encoder": {
            "input_size": 8,
            "output_size": 8,
            "attention_heads": 1,
            "linear_units": 8,
            "num_blocks": 1,
        },
        "length_regulator": {"channels": 80, "sampling_ratios": [1]},
        "decoder": {
            "cfm_params": {"inference_cfg_rate": 0.0},
            "estimator": {
                "in_channels": 320,
                "out_channels": 80,
                "channels": [8],
                "attention_head_dim": 8,
                "n_blocks": 1,
                "num_mid_blocks": 0,
                "num_heads": 1,
            },
        },
    },
    "hift": {
        "in_channels": 80,
        "base_channels": 16,
        "nb_harmonics": 1,
        "sampling_rate": 22_050,
        "upsample_rates": [2],
        "upsample_kernel_sizes": [4],
        "istft_params": {"n_fft": 256, "hop_len": 128},
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1]],
        "source_resblock_kernel_sizes": [3],
        "source_resblock_dilation_sizes": [[1]],
        "f0_predictor": {"in_channels": 80, "cond_channels": 8},
    },
    "feat_extractor": {
        "n_fft": 1024,
        "num_mels": 80,
        "sampling_rate": 22_050,
        "hop_size": 256,
        "win_size": 1024,
        "fmax": 8000.0,
    },
}


# The published dimensions (SPEC 7.1): 105 M and 20 M parameters.
PUBLISHED: dict[str, Any] = {
    "flow": {
        "input_size": 512,
        "output_size": 80,
        "spk_embed_dim": 192,
        "vocab_size": 5121,
        "input_frame_rate": 125 / 3,
        "encoder": {
            "input_size": 512,
            "output_size": 512,
            "attention_heads": 8,
            "linear_units": 2048,
            "num_blocks": 6,
        },
        "length_regulator": {"channels": 80, "sampling_ratios": [1, 1, 1, 1]},
        "decoder": {
            "cfm_params": {"inference_cfg_rate": 0.7},
            "estimator": {
                "in_channels": 320,
                "out_channels": 80,
                "channels": [256, 256],
                "attention_head_dim": 64,
                "n_blocks": 4,
                "num_mid_blocks": 12,
                "num_heads": 8,
            },
        },
    },
    "hift": {
        "in_channels": 80,
        "base_channels": 512,
        "nb_harmonics": 8,
        "sampling_rate": 22_050,
        "upsample_rates": [8, 8],
        "upsample_kernel_sizes": [16, 16],
        "istft_params": {"n_fft": 16, "hop_len": 4},
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "source_resblock_kernel_sizes": [7, 11],
        "source_resblock_dilation_sizes": [[1, 3, 5]] * 2,
        "f0_predictor": {"in_channels": 80, "cond_channels": 512},
    },
    "feat_extractor": TINY["feat_extractor"],
}


def random_vocoder(
    dimensions: dict[str, Any],
    config: VocoderConfig,
    *names: str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    prompt_groups: int = 2,
) -> Vocoder:
    """A vocoder at random weights, with voices `names` of so many groups."""
    described = CosyVoiceConfig.model_validate(dimensions)
    torch.manual_seed(0)
    flow, hift = Flow(described.flow), Hift(described.hift)
    for module in (flow, hift):
        module.eval().requires_grad_(False)
    hift.freeze()
    frames = Grid(22_050, 256, 1.0).frames(prompt_groups) + 1
    voices = {
        name: Voice(
            name,
            torch.tensor(tokens(prompt_groups, seed)),
            torch.randn(frames, 80),
            torch.randn(192),
        )
        for seed, name in enumerate(names)
    }
    networks = ChunkSynthesiser(flow.to(device, dtype), hift.to(device), config)
    return Vocoder(networks, described.feat_extractor, voices)


def tiny_vocoder(config: VocoderConfig, *names: str) -> Vocoder:
    """The smallest vocoder, at random weights."""
    return random_vocoder(TINY, config, *names)


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


def fixture_vocoder(directory: Path, fixtures: Path, *names: str, **settings: Any) -> Vocoder:
    """The fixtures' vocoder with voices `names`, whose files are written to `directory`."""
    config = VocoderConfig(path=checkpoint(fixtures), **settings)
    return Vocoder.load(config, write_voices(directory, fixtures, *names))
