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

from aqaa.models.bundle import TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.recipe.decoder.clips import in_mood
from aqaa.models.recipe.domain.load import Style, load_domain
from aqaa.models.recipe.speech.cache import Utterance, say
from aqaa.models.recipe.vocoder.pitch import f0_track
from aqaa.models.recipe.vocoder.settings import HOP, settings
from aqaa.vocoder.mel import log_mel

Item = TypeVar("Item")
MOODS: tuple[Style, ...] = ("happy", "sad")
SUMS = ("plus", "minus", "times")  # intents that have an answer for every pair of numbers
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
        mood: how; "happy" and "sad" are made of plain speech by the decoder's recipe.
        wave: float32 [256 T], 22 050 Hz.
        mel: float32 [80, T], natural log.
        f0: float32 [T], Hz, 0 where there is no voice.
    """

    utterance: Utterance
    mood: Style
    wave: Tensor
    mel: Tensor
    f0: Tensor


def script(seed: int = 0) -> list[tuple[Utterance, Style]]:
    """The corpus, in a fixed order: every 20th is held out of training (see `held_out`).

    Answers are what the vocoder will have to say, so both teachers say them (alpha, who is dear,
    few of the sums), and joe, whose tokens the decoder learns, says them slowly, quickly and in
    moods too. Questions add words.
    """
    rng = random.Random(seed)
    domain = load_domain()
    answers = list(domain.answers())
    questions = rng.sample(domain.questions(), 240)
    said = [Utterance(t, "joe") for t in [*RICH, *answers, *questions]]
    sums = list(dict.fromkeys(f.answer for f in domain.facts if f.intent in SUMS))
    other = [t for t in answers if t not in sums] + rng.sample(sums, 30)
    said += [Utterance(t, "alpha") for t in [*RICH, *other, *questions[:60]]]
    said += [Utterance(t, "joe", rate) for rate in (0.75, 1.3) for t in rng.sample(answers, 80)]
    said += [Utterance(t, v) for v in ("slt", "awb")
             for t in rng.sample(questions, 40)]  # fmt: skip
    lines: list[tuple[Utterance, Style]] = [(u, "plain") for u in said]
    for mood in MOODS:
        lines += [(Utterance(t, "joe"), mood) for t in rng.sample(answers, 60)]
    rng.shuffle(lines)
    return lines


def record(utterance: Utterance, mood: Style) -> Recording:
    """Say `utterance` (through the speech cache) and measure it."""
    heard, rate = say(utterance)
    if mood in MOODS:
        heard = in_mood(soxr.resample(heard, rate, TOKENIZER_RATE).astype(np.float32), mood)
        rate = TOKENIZER_RATE  # what is above 8 kHz is lost, but mels end there anyway
    edge = np.zeros(int(EDGE_SILENCE * VOCODER_RATE), np.float32)
    wave = np.concatenate([edge, soxr.resample(heard, rate, VOCODER_RATE), edge])
    wave = np.ascontiguousarray(wave[: len(wave) // HOP * HOP], dtype=np.float32)
    sound = torch.from_numpy(wave)
    mel = log_mel(sound, settings().feat_extractor)
    return Recording(utterance, mood, sound, mel, f0_track(sound, HOP))


def load_corpus(cache: Path, seed: int = 0) -> list[Recording]:
    """All recordings, measured once and kept in `cache` (a file of tensors)."""
    lines = script(seed)
    if cache.exists():
        rows = torch.load(cache, weights_only=True)
        if [row["line"] for row in rows] == [(*u, mood) for u, mood in lines]:
            return [
                Recording(Utterance(*row["line"][:-1]), row["line"][-1], *row["measured"])
                for row in rows
            ]
    recordings = [record(*line) for line in track(lines, "measuring")]
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        [{"line": (*r.utterance, r.mood), "measured": (r.wave, r.mel, r.f0)} for r in recordings],
        cache,
    )
    return recordings


def held_out(items: list[Item]) -> tuple[list[Item], list[Item]]:
    """(to train on, to judge by): every 20th is for judging."""
    return [x for i, x in enumerate(items) if i % 20], items[::20]
