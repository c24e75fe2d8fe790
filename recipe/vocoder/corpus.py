"""What the vocoder is trained on: the teacher saying the domain, in each of the bundle's voices."""

from __future__ import annotations

import multiprocessing
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from aqaa.models.bundle import TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.recipe.decoder.clips import ANSWER_KEEP, ANSWER_TAIL, Encode, as_answer, ends
from aqaa.recipe.decoder.renderings import choose
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.replies import all_answers
from aqaa.recipe.speech.cache import Utterance, say
from aqaa.recipe.speech.pitch import f0_track
from aqaa.recipe.speech.voices import TEACHER, Wave
from aqaa.recipe.vocoder.settings import GROUP_FRAMES, HOP, settings
from aqaa.recipe.vocoder.voicing import VOICES, voiced
from aqaa.vocoder.mel import log_mel

Measured = dict[str, tuple[NDArray[np.float32], ...]]  # by voice: what a `Rendition` has
QUESTIONS, JUDGED = 180, 60  # sentences beside the answers: to train on, and to judge by
HOUSEHOLD, NEW = 600, 40  # of what is said to commands: to train on, and to judge by

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
    """`training` has every answer of the domain and some to commands; `judged` has others."""

    training: list[Sentence]
    judged: list[Sentence]


def script(seed: int = 0) -> tuple[list[str], list[str]]:
    """The texts to train on, and those to judge by, in a fixed order.

    Of what is said to commands (times, durations, places, degrees) a sample: the rest must be said
    by a model that never heard it whole, and some of it judges whether that is so.
    """
    domain = load_domain()
    questions = random.Random(seed).sample(domain.questions(), QUESTIONS + JUDGED)
    said = random.Random(seed).sample(sorted(set(all_answers())), HOUSEHOLD + NEW)
    training = [*RICH, *domain.answers(), *said[:HOUSEHOLD], *questions[:QUESTIONS]]
    return training, [*questions[QUESTIONS:], *said[HOUSEHOLD:]]


def record(utterance: Utterance) -> Measured:
    """The utterance (through the speech cache) just as the decoder's answers are, in every voice.

    Arrays, not tensors: they go from process to process without a file descriptor each.
    """
    heard, rate = say(utterance)
    first, last = ends(soxr.resample(heard, rate, TOKENIZER_RATE), ANSWER_KEEP)
    cut = soxr.resample(heard, rate, VOCODER_RATE)[
        round(first * VOCODER_RATE) : round(last * VOCODER_RATE)
    ]
    # The last group of tokens is whole, whatever is said in it, and must have its frames too.
    wave = np.pad(cut, (0, round((ANSWER_TAIL + GROUP_SECONDS) * VOCODER_RATE)))
    wave = np.ascontiguousarray(wave[: len(wave) // HOP * HOP], dtype=np.float32)
    others = [name for name in VOICES if name != TEACHER]
    return {name: _measure(w) for name, w in ({TEACHER: wave} | voiced(wave, others)).items()}


def _measure(wave: Wave) -> tuple[NDArray[np.float32], ...]:
    sound = torch.from_numpy(wave)
    mel = log_mel(sound, settings().feat_extractor)
    return wave, mel.numpy(), f0_track(sound, HOP).numpy()


def load_corpus(cache: Path, encode: Encode, processes: int = 2) -> Corpus:
    """All sentences, made once for these renderings and voices, and kept in the file `cache`."""
    training, judged = script()
    household = set(all_answers())
    texts = training + judged
    clear = choose([*load_domain().answers(), *(text for text in texts if text in household)])
    said = [clear.get(text, Utterance(text, TEACHER)) for text in texts]
    wanted = {
        "texts": texts,
        "said": [tuple(utterance) for utterance in said],
        "voices": {n: asdict(v) for n, v in VOICES.items()},
    }
    kept = torch.load(cache, weights_only=True) if cache.exists() else {}
    if {name: kept.get(name) for name in wanted} != wanted:
        kept = wanted | {"rows": _rows(said, encode, processes)}
        cache.parent.mkdir(parents=True, exist_ok=True)
        torch.save(kept, cache)
    made = [
        Sentence(text, row["tokens"], {n: Rendition(*r) for n, r in row["voices"]})
        for text, row in zip(texts, kept["rows"], strict=True)
    ]
    return Corpus(made[: len(training)], made[len(training) :])


def _rows(said: list[Utterance], encode: Encode, processes: int) -> list[dict[str, Any]]:
    """What `load_corpus` keeps of every sentence: tokens of whole groups, and the voices."""
    tokens = [encode(as_answer(utterance)) for utterance in track(said, "tokenising")]
    with multiprocessing.get_context("spawn").Pool(processes, torch.set_num_threads, (1,)) as pool:
        recorded = list(track(pool.imap(record, said), "recording", total=len(said)))
    rows = []
    for ids, voices in zip(tokens, recorded, strict=True):
        _, mel, _ = voices[TEACHER]
        groups = min(len(ids) // GROUP_TOKENS, int(mel.shape[1] / GROUP_FRAMES))
        measured = [(n, tuple(torch.from_numpy(x) for x in parts)) for n, parts in voices.items()]
        rows.append({"tokens": torch.tensor(ids[: groups * GROUP_TOKENS]), "voices": measured})
    return rows
