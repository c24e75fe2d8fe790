"""What the vocoder is trained on: both teachers saying the domain, as waves, mels and f0 tracks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soxr
import torch
from rich.progress import track
from torch import Tensor

from aqaa.models.bundle import VOCODER_RATE
from aqaa.models.recipe.domain.load import load_domain
from aqaa.models.recipe.speech.cache import Utterance, say
from aqaa.models.recipe.vocoder.settings import HOP, settings
from aqaa.vocoder.mel import log_mel

Item = TypeVar("Item")
F0_FLOOR, F0_CEIL = 55.0, 500.0  # Hz; joe speaks around 110, alpha around 230, both with styles
EDGE_SILENCE = 0.06  # seconds of silence put before and after: answers begin and end in silence

# Sentences beside the domain's, so that every sound of English is heard in many neighbourhoods.
RICH = (
    "The quick brown fox jumps over the lazy dog.",
    "She sells sea shells by the sea shore.",
    "A journey of a thousand miles begins with a single step.",
    "Please call Stella and ask her to bring these things from the store.",
    "The rainbow is a division of white light into many beautiful colours.",
    "We could measure the joy of the choir by the volume of their voices.",
    "Yesterday's weather was unusually rough, though the evening turned out fine.",
    "Which of these young judges chose the chess match?",
)


@dataclass(frozen=True)
class Recording:
    """One utterance, cut to whole mel frames.

    Attributes:
        utterance: what was said, by whom, how fast.
        wave: float32 [256 T], 22 050 Hz.
        mel: float32 [80, T], natural log.
        f0: float32 [T], Hz, 0 where there is no voice.
    """

    utterance: Utterance
    wave: Tensor
    mel: Tensor
    f0: Tensor


def utterances(seed: int = 0) -> list[Utterance]:
    """The corpus, in a fixed order: every 20th is held out of training (see `held_out`).

    Answers are what the vocoder will have to say, so both teachers say all of them, and joe, whose
    tokens the decoder learns, says them slowly and quickly too. Questions add other words.
    """
    rng = random.Random(seed)
    domain = load_domain()
    answers = list(domain.answers())
    questions = rng.sample(domain.questions(), 240)
    said = [Utterance(t, "joe") for t in [*RICH, *answers, *questions]]
    said += [Utterance(t, "alpha") for t in [*RICH, *answers, *questions[:60]]]
    said += [Utterance(t, "joe", rate) for rate in (0.75, 1.3) for t in rng.sample(answers, 80)]
    said += [Utterance(t, v) for v in ("kumo", "gongitsune", "slt", "awb")
             for t in rng.sample(questions, 40)]  # fmt: skip
    rng.shuffle(said)
    return said


def record(utterance: Utterance) -> Recording:
    """Say `utterance` (through the speech cache) and measure it."""
    import pyworld

    heard, rate = say(utterance)
    edge = np.zeros(int(EDGE_SILENCE * VOCODER_RATE), np.float32)
    wave = np.concatenate([edge, soxr.resample(heard, rate, VOCODER_RATE), edge])
    frames = len(wave) // HOP
    wave = np.ascontiguousarray(wave[: frames * HOP], dtype=np.float32)
    double = wave.astype(np.float64)
    coarse, times = pyworld.dio(
        double, VOCODER_RATE, F0_FLOOR, F0_CEIL, frame_period=1000 * HOP / VOCODER_RATE
    )
    f0 = pyworld.stonemask(double, coarse, times, VOCODER_RATE)[:frames].astype(np.float32)
    mel = log_mel(torch.from_numpy(wave), settings().feat_extractor)
    return Recording(utterance, torch.from_numpy(wave), mel, torch.from_numpy(f0))


def load_corpus(cache: Path, seed: int = 0) -> list[Recording]:
    """All recordings, measured once and kept in `cache` (a file of tensors)."""
    corpus = utterances(seed)
    if cache.exists():
        rows = torch.load(cache, weights_only=True)
        if [row["said"] for row in rows] == [tuple(u) for u in corpus]:
            return [
                Recording(Utterance(*row["said"]), row["wave"], row["mel"], row["f0"])
                for row in rows
            ]
    recordings = [record(u) for u in track(corpus, "measuring")]
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        [
            {"said": tuple(r.utterance), "wave": r.wave, "mel": r.mel, "f0": r.f0}
            for r in recordings
        ],
        cache,
    )
    return recordings


def held_out(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """(to train on, to judge by): every 20th is for judging."""
    return [x for i, x in enumerate(items) if i % 20], items[::20]
