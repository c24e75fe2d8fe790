"""Moments as audio tokens: what the ears have made of the sound when they are asked."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.recipe.decoder.clips import as_answer
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import SPOKEN, TEACHER, VOICES, Wave
from aqaa.recipe.turn.moments import (
    BACKCHANNELS,
    INTERRUPTIONS,
    Heard,
    Question,
    backchannel,
    broken,
    disturbance,
    interruption,
)
from aqaa.tokenizers.dual import DualStream, DualTokenizer
from aqaa.tokenizers.steps import run_together

SHARD = 100  # clips
TOGETHER = 16  # of them at once, and one thread is as busy as it can be
TAKES = 3  # of an interjection, each through a channel of its own
UNKNOWN = 2  # of an end that is not asked for
DISTURBANCES = 0.35  # of them for each clip
ANSWERS = 100
CHEAP = 0.1  # cpu-seconds for a second of speech
NATURAL = 40  # one in so many human voices says an interjection


@dataclass(frozen=True)
class Asked:
    """A moment in tokens: int64 [5 G], whether it is an end (`UNKNOWN`: no question), its kind."""

    tokens: NDArray[np.int64]
    end: int
    kind: int


def tokenise(clips: Sequence[Heard], tokenizer: DualTokenizer) -> list[Asked]:
    """Every question of every clip as the ears have it, in order.

    A clip is heard once: at each question its stream is forked, and the fork hears the quiet and is
    flushed. So a break costs as much as its quiet, a tenth of what the clip does.
    """
    rows: list[Asked] = []
    for begin in range(0, len(clips), TOGETHER):
        rows += _tokenise(clips[begin : begin + TOGETHER], tokenizer)
    return rows


def _tokenise(clips: Sequence[Heard], tokenizer: DualTokenizer) -> list[Asked]:
    streams = [tokenizer.stream() for _ in clips]
    heard: list[list[int]] = [[] for _ in clips]
    asked: list[tuple[int, Question, list[int], DualStream]] = []
    for turn in range(max(len(clip.questions) for clip in clips)):
        here = [n for n, clip in enumerate(clips) if turn < len(clip.questions)]
        pieces = []
        for n in here:
            since = clips[n].questions[turn - 1].place if turn else 0
            pieces.append(streams[n].pushing(clips[n].wave[since : clips[n].questions[turn].place]))
        for n, ids in zip(here, run_together(pieces, tokenizer.run), strict=True):
            heard[n] += ids
            asked.append((n, clips[n].questions[turn], list(heard[n]), streams[n].fork()))
    quiet = run_together([fork.pushing(q.quiet) for _, q, _, fork in asked], tokenizer.run)
    rest = run_together([fork.flushing() for _, _, _, fork in asked], tokenizer.run)
    rows = []
    for (n, question, before, _), more, last in zip(asked, quiet, rest, strict=True):
        tokens = np.asarray([*before, *more, *last], np.int64) - tokenizer.audio_offset
        end = UNKNOWN if question.end is None else int(question.end)
        if len(tokens):
            rows.append((n, Asked(tokens, end, clips[n].kind)))
    return [row for _, row in sorted(rows, key=lambda one: one[0])]


def make_shard(utterances: Sequence[Utterance], path: Path) -> None:
    """Writes the moments of `utterances`, and disturbances beside them, to one .npz file."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    clips: list[Heard] = []
    answers = _answers(rng)
    for utterance in utterances:
        wave = hear(utterance)
        if utterance.text in BACKCHANNELS:
            clips += [backchannel(wave, rng) for _ in range(TAKES)]
        elif utterance.text in INTERRUPTIONS:
            clips += [interruption(wave, rng) for _ in range(TAKES)]
        else:
            clips += broken(wave, utterance.text, rng)
            if rng.random() < DISTURBANCES:
                clips.append(disturbance(next(answers), rng))
    save(tokenise(clips, ears()), path)


@functools.cache
def ears() -> DualTokenizer:
    """Nano's."""
    return DualTokenizer.load(load_bundle(nano_path()))


def _answers(rng: np.random.Generator) -> Iterator[Wave]:
    """The teacher's answers in a random order, of those that were spoken for this."""
    said = answer_plan()
    while True:
        yield as_answer(said[int(rng.integers(len(said)))])


def answer_plan() -> list[Utterance]:
    """`ANSWERS` answers, spread over the domain, in the teacher's voice."""
    texts = load_domain().answers()
    return [Utterance(text, TEACHER) for text in texts[:: max(1, len(texts) // ANSWERS)]]


def interjection_plan() -> list[Utterance]:
    """What is said into answers: half of the voices that cost little say each of `BACKCHANNELS` and
    `INTERRUPTIONS`, and some of the human ones."""
    cheap = [name for name in SPOKEN if VOICES[name].cost <= CHEAP]
    natural = [name for name in SPOKEN if VOICES[name].engine == "kokoro"]
    plan = []
    for number, text in enumerate((*BACKCHANNELS, *INTERRUPTIONS)):
        voices = cheap[number % 2 :: 2] + natural[number % NATURAL :: NATURAL]
        plan += [Utterance(text, v, (0.95, 1.1)[place % 3 == 0]) for place, v in enumerate(voices)]
    return plan


def save(rows: Sequence[Asked], path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(
        partial,
        tokens=np.concatenate([row.tokens for row in rows]).astype(np.uint16),
        lengths=np.array([len(row.tokens) for row in rows]),
        ends=np.array([row.end for row in rows], np.uint8),
        kinds=np.array([row.kind for row in rows], np.uint8),
    )
    partial.replace(path)


def load(path: Path) -> list[Asked]:
    """What `save` wrote."""
    with np.load(path) as file:
        pieces = np.split(file["tokens"].astype(np.int64), np.cumsum(file["lengths"])[:-1])
        return [
            Asked(tokens, int(end), int(kind))
            for tokens, end, kind in zip(pieces, file["ends"], file["kinds"], strict=True)
        ]
