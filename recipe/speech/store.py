"""The corpus as one array: every clip at 16 kHz int16, its phonemes, speaker and pitch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray
from rich.progress import track

from aqaa.recipe.speech.cache import Utterance, say
from aqaa.recipe.speech.phonemes import phoneme_ids
from aqaa.recipe.speech.voices import Wave

RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """One utterance: int16 16 kHz [samples], its phoneme numbers, who says which words."""

    pcm: NDArray[np.int16]
    phonemes: tuple[int, ...]
    voice: str
    text: str

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from all other clips: who says what, and how long it takes."""
        return self.voice, self.text, len(self.pcm)

    @property
    def wave(self) -> Wave:
        """float32 [samples] in [-1, 1]."""
        return self.pcm.astype(np.float32) / np.float32(32768)


def hear(utterance: Utterance) -> Wave:
    """The utterance at 16 kHz, float32, from the cache (spoken now if it is not there)."""
    wave, rate = say(utterance)
    return np.asarray(soxr.resample(wave, rate, RATE) if rate != RATE else wave, np.float32)


def pack(utterances: list[Utterance], path: Path) -> None:
    """Write `path`.npy (all samples, int16) and `path`.json (clips); speaks what is not cached."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm, rows = [], []
    for u in track(utterances, "packing"):
        pcm.append((np.clip(hear(u), -1, 1) * 32767).astype(np.int16))
        rows.append([len(pcm[-1]), phoneme_ids(u.text), u.voice, u.text])
    np.save(path.with_suffix(".npy"), np.concatenate(pcm))
    path.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")


def load(path: Path) -> list[Clip]:
    """What `pack` wrote; the samples stay on disk until they are read."""
    pcm = np.load(path.with_suffix(".npy"), mmap_mode="r")
    clips, start = [], 0
    for n, phonemes, voice, text in json.loads(path.with_suffix(".json").read_text("utf-8")):
        clips.append(Clip(pcm[start : start + n], tuple(phonemes), voice, text))
        start += n
    return clips
