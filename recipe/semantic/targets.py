"""What the semantic tokens must keep, frame by frame: who speaks how high, and the clean sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from aqaa.recipe.speech.batches import Row
from aqaa.recipe.speech.guide import Guide
from aqaa.recipe.speech.pitch import f0_track
from aqaa.recipe.speech.store import RATE, Clip
from aqaa.recipe.speech.voices import SPOKEN
from aqaa.tokenizers.features import whisper_log_mel

PITCH_HOP = 256 / 22_050  # seconds between the pitch tracker's frames
TOKEN = 640  # samples a token
FRAMES = 4  # mel frames a token
MEL_PEAK = 1.2  # log10 power; aqaa.toml's tokenizer.streaming.mel_peak must be the same
SPEAKERS = {name: i + 1 for i, name in enumerate(SPOKEN)}  # 0 is silence


def log_mel(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """The streaming log-mel [128, samples // 160] that serving computes, bit for bit."""
    return np.ascontiguousarray(whisper_log_mel(wave, chunk_frames=24, mel_peak=MEL_PEAK).T)


@dataclass(frozen=True)
class Pitch:
    """Every clip's log f0 relative to its voice's mean; NaN where unvoiced."""

    tracks: dict[tuple[str, str, int], NDArray[np.float32]]

    def of(self, clip: Clip) -> NDArray[np.float32]:
        """float32 [frames at 86.1 Hz]."""
        return self.tracks[clip.key]


def measure_pitch(clips: Sequence[Clip], path: Path) -> Pitch:
    """Track every clip, or read `path` for those that were tracked before."""
    known: dict[str, NDArray[np.float32]] = {}
    if path.exists():
        with np.load(path) as file:
            known = {name: file[name] for name in file.files}
    unique = {clip.key: clip for clip in clips}
    for key, clip in track(unique.items(), "tracking pitch"):
        name = "|".join(map(str, key))
        if name not in known:
            wave = soxr.resample(clip.wave, RATE, 22_050).astype(np.float32)
            known[name] = f0_track(torch.from_numpy(wave)).numpy()
    np.savez(path, **known)  # type: ignore[arg-type]
    logs = {}
    with np.errstate(divide="ignore"):
        for key in unique:
            f0 = known["|".join(map(str, key))]
            logs[key] = np.where(f0 > 0, np.log(np.maximum(f0, 1.0)), np.nan).astype(np.float32)
    means = {}
    for voice in {key[0] for key in unique}:
        heard = np.concatenate([logs[key] for key in unique if key[0] == voice])
        means[voice] = np.nanmean(heard) if np.isfinite(heard).any() else np.float32(0)
    return Pitch({key: logs[key] - means[key[0]] for key in unique})


@dataclass(frozen=True)
class Targets:
    """One batch: what goes in, and what its tokens are asked for."""

    mel: Tensor  # float32 [B, 128, F], as heard
    clean: Tensor  # float32 [B, T, 4 * 128], of the clean row
    speaker: Tensor  # int64 [B, T]
    speed: Tensor  # float32 [B, T], log of the playing speed
    pitch: Tensor  # float32 [B, T], NaN where unvoiced
    guide: NDArray[np.float32]  # [B, T, 96], NaN in silence
    phonemes: list[list[int]]


def make_targets(
    rows: Sequence[Row], pitch: Pitch, guide: Guide, rng: np.random.Generator
) -> Targets:
    """Features and targets of rows whose length is a whole number of tokens."""
    count, tokens = len(rows), len(rows[0].clean) // TOKEN
    speaker = np.zeros((count, tokens), np.int64)
    speed = np.zeros((count, tokens), np.float32)
    tone = np.full((count, tokens), np.nan, np.float32)
    heard, clean = [], []
    for i, row in enumerate(rows):
        heard.append(_warp(log_mel(row.heard), rng))
        clean.append(log_mel(row.clean).T.reshape(tokens, -1))
        for placed in row.placed:
            length = len(placed.clip.pcm) / placed.speed
            first, last = placed.start // TOKEN, min(tokens, int(placed.start + length) // TOKEN)
            speaker[i, first:last] = SPEAKERS.get(placed.clip.voice, 0)
            speed[i, first:last] = np.log(placed.speed)
            middle = (np.arange(first, last) + 0.5) * TOKEN - placed.start
            at = (middle / RATE * placed.speed / PITCH_HOP).astype(int)
            f0 = pitch.of(placed.clip)
            tone[i, first:last] = f0[np.clip(at, 0, len(f0) - 1)]
    return Targets(
        torch.from_numpy(np.stack(heard)),
        torch.from_numpy(np.stack(clean)),
        torch.from_numpy(speaker),
        torch.from_numpy(speed),
        torch.from_numpy(tone),
        guide.targets(rows, TOKEN),
        [row.phonemes for row in rows],
    )


def _warp(mel: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Stretch the mel axis a little (another vocal tract) and tilt it (another microphone)."""
    bins = np.arange(len(mel), dtype=np.float32)
    at = np.clip(bins * rng.uniform(0.92, 1.09), 0, len(mel) - 1)
    low = at.astype(int)
    share = (at - low)[:, None].astype(np.float32)
    warped = mel[low] * (1 - share) + mel[np.minimum(low + 1, len(mel) - 1)] * share
    tilt = np.cos(bins / len(mel) * np.pi * rng.uniform(0.3, 3)) * rng.normal(0, 0.07)
    out: NDArray[np.float32] = warped + tilt[:, None].astype(np.float32)
    return out
