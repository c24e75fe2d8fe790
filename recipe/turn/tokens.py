"""Moments as audio tokens: what the ears have made of the sound when they are asked."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqaa.models.groups import GROUP_TOKENS
from aqaa.recipe.decoder.clips import as_answer
from aqaa.recipe.decoder.prepare import encode, encode_all
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import SPOKEN, TEACHER, VOICES, Wave
from aqaa.recipe.turn.moments import (
    BACKCHANNELS,
    INTERRUPTIONS,
    Moment,
    backchannel,
    disturbance,
    interruption,
    moments,
)

GROUP = 1920  # samples
SHARD = 100  # clips
UNKNOWN = 2  # of an end that is not asked for
DISTURBANCES = 0.35  # of them for each clip
ANSWERS = 100
CHEAP = 0.1  # cpu-seconds for a second of speech
NATURAL = 12  # one in so many human voices says an interjection


@dataclass(frozen=True)
class Asked:
    """A moment in tokens: int64 [5 G], whether it is an end (`UNKNOWN`: no question), its kind."""

    tokens: NDArray[np.int64]
    end: int
    kind: int


def tokenise(found: Sequence[Moment], exactly: bool = False) -> list[Asked]:
    """Tokens of all whole groups of each moment; `exactly` goes the way of one stream each."""
    waves = [moment.wave for moment in found]
    codes = [encode(wave) for wave in waves] if exactly else encode_all(waves)
    rows = []
    for moment, ids in zip(found, codes, strict=True):
        groups = min(len(ids) // GROUP_TOKENS, len(moment.wave) // GROUP)
        tokens = np.asarray(ids[: groups * GROUP_TOKENS], np.int64)
        end = UNKNOWN if moment.end is None else int(moment.end)
        if groups:
            rows.append(Asked(tokens, end, moment.kind))
    return rows


def make_shard(utterances: Sequence[Utterance], path: Path, wholes: frozenset[str]) -> None:
    """Writes the moments of `utterances`, and disturbances beside them, to one .npz file."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    found: list[Moment] = []
    answers = _answers(rng)
    for utterance in utterances:
        wave = hear(utterance)
        if utterance.text in BACKCHANNELS:
            found += [backchannel(wave, rng) for _ in range(3)]
            continue
        if utterance.text in INTERRUPTIONS:
            found += [interruption(wave, rng) for _ in range(3)]
            continue
        found += moments(wave, utterance.text, wholes, rng)
        if rng.random() < DISTURBANCES:
            found.append(disturbance(next(answers), rng))
    save(tokenise(found), path)


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


def complete(texts: Sequence[str]) -> frozenset[str]:
    """`texts` in the form that `may_be_whole` compares."""
    return frozenset(normalise(text) for text in texts)


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
