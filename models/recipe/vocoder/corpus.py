"""What the vocoder is trained on: the teacher saying the domain, in each of the bundle's voices."""

from __future__ import annotations

import multiprocessing
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from rich.progress import track
from torch import Tensor

from aqaa.models.bundle import GROUP_TOKENS, TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.recipe.decoder.clips import ANSWER_KEEP, ANSWER_TAIL, EncodeAll, as_answer, ends
from aqaa.models.recipe.domain.load import load_domain
from aqaa.models.recipe.speech.cache import Utterance, say
from aqaa.models.recipe.speech.pitch import f0_track
from aqaa.models.recipe.speech.voices import TEACHER
from aqaa.models.recipe.vocoder.settings import GROUP_FRAMES, HOP, settings
from aqaa.models.recipe.vocoder.voicing import PLAIN, VOICES, voiced
from aqaa.vocoder.mel import log_mel

QUESTIONS, JUDGED = 180, 60  # sentences beside the answers: to train on, and to judge by

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
class Rendition:
    """A sentence in one voice, cut to whole mel frames.

    Attributes:
        wave: float32 [256 T], 22 050 Hz.
        mel: float32 [80, T], natural log.
        f0: float32 [T], Hz, 0 where there is no voice.
    """

    wave: Tensor
    mel: Tensor
    f0: Tensor


@dataclass(frozen=True)
class Sentence:
    """One text.

    Attributes:
        text: the words.
        tokens: audio tokens int64 [5 G] of the teacher's own speech: what the decoder says.
        voices: the sound of it, by voice; all with the teacher's timing.
    """

    text: str
    tokens: Tensor
    voices: dict[str, Rendition]


@dataclass(frozen=True)
class Corpus:
    """`training` has every answer of the domain, which is what nano will say; `judged` others."""

    training: list[Sentence]
    judged: list[Sentence]


def script(seed: int = 0) -> tuple[list[str], list[str]]:
    """The texts to train on, and those to judge by, in a fixed order."""
    domain = load_domain()
    questions = random.Random(seed).sample(domain.questions(), QUESTIONS + JUDGED)
    return [*RICH, *domain.answers(), *questions[:QUESTIONS]], questions[QUESTIONS:]


def record(text: str) -> dict[str, Rendition]:
    """Say `text` (through the speech cache) just as the decoder's answers are, in every voice."""
    heard, rate = say(Utterance(text, TEACHER))
    first, last = ends(soxr.resample(heard, rate, TOKENIZER_RATE), ANSWER_KEEP)
    cut = soxr.resample(heard, rate, VOCODER_RATE)[
        round(first * VOCODER_RATE) : round(last * VOCODER_RATE)
    ]
    wave = np.pad(cut, (0, round(ANSWER_TAIL * VOCODER_RATE)))
    wave = np.ascontiguousarray(wave[: len(wave) // HOP * HOP], dtype=np.float32)
    others = [name for name in VOICES if name != PLAIN]
    return {name: _measure(w) for name, w in ({PLAIN: wave} | voiced(wave, others)).items()}


def _measure(wave: np.ndarray) -> Rendition:
    sound = torch.from_numpy(wave)
    return Rendition(sound, log_mel(sound, settings().feat_extractor), f0_track(sound, HOP))


def load_corpus(cache: Path, encode_all: EncodeAll, processes: int = 2) -> Corpus:
    """All sentences, made once and kept in `cache` (a file of tensors)."""
    training, judged = script()
    if cache.exists():
        rows = torch.load(cache, weights_only=True)
        made = [
            Sentence(row["text"], row["tokens"], {n: Rendition(*r) for n, r in row["voices"]})
            for row in rows
        ]
        if [sentence.text for sentence in made] == training + judged:
            return Corpus(made[: len(training)], made[len(training) :])
    texts = training + judged
    tokens = encode_all([as_answer(Utterance(text, TEACHER)) for text in texts])
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        voices = list(track(pool.imap(_recorded, texts), "recording", total=len(texts)))
    made = [_sentence(*row) for row in zip(texts, tokens, voices, strict=True)]
    rows = [
        {
            "text": s.text,
            "tokens": s.tokens,
            "voices": [(name, (r.wave, r.mel, r.f0)) for name, r in s.voices.items()],
        }
        for s in made
    ]
    cache.parent.mkdir(parents=True, exist_ok=True)
    torch.save(rows, cache)
    return Corpus(made[: len(training)], made[len(training) :])


def _recorded(text: str) -> list[tuple[str, tuple[np.ndarray, ...]]]:
    """`record`, as arrays, which go from process to process without a file descriptor each."""
    voices = record(text)
    return [(n, (r.wave.numpy(), r.mel.numpy(), r.f0.numpy())) for n, r in voices.items()]


def _sentence(
    text: str, tokens: list[int], voices: list[tuple[str, tuple[np.ndarray, ...]]]
) -> Sentence:
    renditions = {n: Rendition(*(torch.from_numpy(a) for a in parts)) for n, parts in voices}
    frames = renditions[PLAIN].mel.shape[1]
    groups = min(len(tokens) // GROUP_TOKENS, int(frames / GROUP_FRAMES))
    return Sentence(text, torch.tensor(tokens[: groups * GROUP_TOKENS]), renditions)
