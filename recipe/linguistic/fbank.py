"""Kaldi's filterbank for a batch, in torch, with filters that can be warped to other vocal tracts.

The same numbers as `kaldi_native_fbank` with Paraformer's settings (SPEC: hamming window, 25/10 ms,
80 HTK mels from 20 to 8,000 Hz, no dither), but batched, so that training is not held up by it.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

RATE = 16_000
FRAME, HOP, FFT = 400, 160, 512
MELS = 80
LOW, HIGH = 20.0, 8000.0
FLOOR = 1.1920929e-07  # Kaldi's float epsilon
LFR_M, LFR_N = 7, 6  # 7 frames stacked every 6
WIDTH = LFR_M * MELS  # 560
CHUNK_SAMPLES = 3840  # 240 ms: 4 frames after stacking
CHUNK_FRAMES = 4


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


@functools.lru_cache(maxsize=64)
def mel_filters(warp: float = 1.0) -> Tensor:
    """[80, 256] triangular filters whose centres are moved by the factor `warp`.

    A warp of 1.1 makes a voice sound as if its vocal tract were a tenth longer.
    """
    bins = torch.arange(FFT // 2, dtype=torch.float64) * RATE / FFT
    low, high = _mel(torch.tensor(LOW)), _mel(torch.tensor(HIGH))
    edges = torch.linspace(float(low), float(high), MELS + 2, dtype=torch.float64)
    mels = _mel((bins * warp).clamp(max=HIGH))[None]
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    up, down = (mels - left) / (centre - left), (right - mels) / (right - centre)
    filters = torch.minimum(up, down).clamp(min=0)
    filters[:, bins * warp > HIGH] = 0
    return filters.float()


@functools.cache
def _window() -> Tensor:
    n = torch.arange(FRAME, dtype=torch.float64)
    return (0.54 - 0.46 * torch.cos(2 * math.pi * n / (FRAME - 1))).float()


def fbank(waves: Tensor, filters: Tensor) -> Tensor:
    """Log-mel energies of whole batches.

    Args:
        waves: float32 [B, samples] in [-1, 1], 16 kHz.
        filters: `mel_filters`, [80, 256] or one a row, [B, 80, 256].

    Returns:
        float32 [B, (samples - 400) // 160 + 1, 80].
    """
    frames = (waves * 32768).unfold(1, FRAME, HOP)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    frames = (frames - 0.97 * before) * _window().to(waves.device)
    power = torch.view_as_real(torch.fft.rfft(frames, FFT)[..., : FFT // 2]).square().sum(-1)
    return torch.log((power @ filters.to(waves.device).transpose(-1, -2)).clamp(min=FLOOR))


def stack(features: Tensor) -> Tensor:
    """Low frame rate: [B, F, 80] -> [B, K, 560], frame k from fbank frames 6k-3 to 6k+3.

    For waves of whole chunks (240 ms each), K is 4 a chunk, as the streaming front end gives.
    """
    padded = torch.cat([features[:, :1].expand(-1, LFR_M // 2, -1), features], 1)
    windows = padded.unfold(1, LFR_M, LFR_N)  # [B, K, 80, 7]
    return windows.transpose(2, 3).reshape(len(features), -1, WIDTH)
