"""The streaming of CosyVoice-1 (SPEC 7.2), which ours is measured against.

Calls overlap: the flow's noise and first estimate of the overlap are kept and put at the head of
the next call's, the mel and the sound of the overlap are faded with a Hamming window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aqaa.vocoder.flow import Flow, token_positions
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.state import Prompt

TOKEN_RATE = 125 / 3  # audio tokens a second
OVERLAP_TOKENS = 20
MEL_CACHE = 20  # frames
PUBLISHED_KEEP = 34  # frames of the flow's cache, hard coded for 50 tokens a second

NoiseOf = Callable[[int, int], Tensor]  # (call, frames with the prompt's) -> z [1, M, frames]


@dataclass(frozen=True)
class Call:
    """One call's stages: the flow's mel [1, M, F], the mel for HiFT, and the sound emitted [N]."""

    flow_mel: Tensor
    mel: Tensor
    sound: Tensor


def overlap_frames(rate: int, hop: int) -> int:
    """Mel frames of the overlap's tokens."""
    return int(OVERLAP_TOKENS / TOKEN_RATE * rate / hop)


@torch.inference_mode()
def speak(
    flow: Flow,
    hift: Hift,
    prompt: Prompt,
    tokens: Sequence[int],
    noise: NoiseOf,
    *,
    hop_tokens: int,
    keep: int,
    steps: int,
) -> list[Call]:
    """Every call of an answer; their sounds, joined, are what the published code streams."""
    hop, rate = hift.config.samples_per_frame, hift.config.sampling_rate
    overlap, known = overlap_frames(rate, hop), prompt.mel.shape[1]
    mel_window = torch.from_numpy(np.hamming(2 * overlap)).float()
    sound_window = torch.from_numpy(np.hamming(2 * MEL_CACHE * hop)).float()
    cache = mel_tail = mel_cache = source_cache = sound_cache = None
    calls: list[Call] = []
    at = 0
    while True:
        last = at + hop_tokens + OVERLAP_TOKENS > len(tokens)
        part = tokens[at:] if last else tokens[at : at + hop_tokens + OVERLAP_TOKENS]
        frames = int(len(part) / TOKEN_RATE * rate / hop)
        positions = len(prompt.tokens) + token_positions(0, frames, len(part), len(part) / frames)
        mu = flow.estimate(
            torch.cat([prompt.tokens, torch.tensor(part)])[None],
            torch.cat([prompt.positions, positions]),
        )
        z = noise(len(calls), known + frames).clone()
        if cache is not None:
            count = cache[0].shape[2]
            z[:, :, :count], mu[:, :, :count] = cache
        cache = [torch.cat([a[:, :, :known], a[:, :, -keep:]], dim=2) for a in (z, mu)]
        cond = torch.zeros_like(mu)
        cond[:, :, :known] = prompt.mel
        flow_mel = flow.sample(mu, z, prompt.speaker[None], cond, steps)[:, :, known:]
        mel = flow_mel
        if mel_tail is not None:
            mel = _fade(mel, mel_tail, mel_window)
        if mel_cache is not None:
            mel = torch.cat([mel_cache, mel], dim=2)
        if not last:
            mel_tail, mel = mel[:, :, -overlap:], mel[:, :, :-overlap]
        source = _silent_source(hift, mel)
        if source_cache is not None:
            source[:, :, : source_cache.shape[2]] = source_cache
        sound = hift.decode(mel, source)
        if sound_cache is not None:
            sound = _fade(sound, sound_cache, sound_window)
        held = MEL_CACHE * hop
        mel_cache, source_cache = mel[:, :, -MEL_CACHE:], source[:, :, -held:]
        sound_cache = sound[:, -held:]
        calls.append(Call(flow_mel, mel, (sound if last else sound[:, :-held])[0]))
        if last:
            return calls
        at += hop_tokens


def _silent_source(hift: Hift, mel: Tensor) -> Tensor:
    """The harmonic source without noise or random phases, as in the fixture."""
    f0 = hift.f0(mel)
    harmonics = hift.config.nb_harmonics + 1
    source, _ = hift.source(
        f0,
        torch.zeros(1, dtype=torch.float64),
        torch.zeros(1, harmonics),
        torch.zeros(1, harmonics, f0.shape[1] * hift.config.samples_per_frame),
    )
    return source


def _fade(new: Tensor, old: Tensor, window: Tensor) -> Tensor:
    """`new` with its head faded in over the tail of `old`, by the two halves of `window`."""
    half = len(window) // 2
    head = new[..., :half] * window[:half] + old[..., -half:] * window[half:]
    return torch.cat([head, new[..., half:]], dim=-1)
