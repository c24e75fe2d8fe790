"""Speech as audio tokens: questions as a microphone hears them, answers as joe says them."""

from __future__ import annotations

import json
import random
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqaa.models.groups import GROUP_TOKENS, LINGUISTIC_CODES
from aqaa.recipe.domain.load import Style
from aqaa.recipe.speech.augment import RATE, add_noise, change_speed, distort, recorded
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.noises import draw_noise
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import TEACHER, VOICES, Wave

Tokens = NDArray[np.uint16]
Encode = Callable[[Wave], Sequence[int]]  # 16 kHz wave -> audio tokens in whole groups
EncodeAll = Callable[[Sequence[Wave]], list[list[int]]]
SILENCE_DB = -38.0  # of the loudest 10 ms; quieter ends are not speech
LEAD, TAIL = (0.0, 0.35), (0.0, 0.4)  # seconds of near-silence that a turn detector leaves
ANSWER_KEEP, ANSWER_TAIL = 0.05, 0.125  # seconds of silence about an answer, and after it
DISTORTED, ROUGH = 0.6, 0.9  # share of a take, and of the last, through room, noise or telephone
NOISE_SECONDS, NOISE_LEVEL = (0.6, 3.0), (-100.0, -15.0)  # level: dB of its power; 16 bits are -96
STRETCH: dict[Style, tuple[int, int]] = {
    "slow": (5, 7),
    "fast": (10, 7),
}  # style -> codes of the plain answer to codes of it: two fifths longer, three tenths shorter


@dataclass
class Material:
    """What the sampler draws from: takes of each question, renderings of each answer, and noises
    in which nobody speaks.

    `human` are the questions that a voice like a person's says.
    """

    questions: dict[str, list[Tokens]] = field(default_factory=dict)
    answers: dict[tuple[str, Style], Tokens] = field(default_factory=dict)
    noises: list[Tokens] = field(default_factory=list)
    human: set[str] = field(default_factory=set)

    def apart(self, share: float, seed: int) -> tuple[Material, Material]:
        """The same in two, the latter with about `share` of the questions; no question in both."""
        rng = random.Random(seed)
        second = {text for text in self.questions if rng.random() < share}
        first = self.questions.keys() - second
        return self._only(first), self._only(second)

    def _only(self, texts: Set[str]) -> Material:
        questions = {text: takes for text, takes in self.questions.items() if text in texts}
        return replace(self, questions=questions, human=self.human & texts)


def ends(wave: Wave, keep: float) -> tuple[float, float]:
    """Where speech begins and ends in `wave` (16 kHz), `keep` seconds of silence left: seconds."""
    frame = RATE // 100
    frames = len(wave) // frame
    power = np.square(wave[: frames * frame].reshape(frames, frame)).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (SILENCE_DB / 10))
    margin = int(keep * 100)
    return max(loud[0] - margin, 0) / 100, min(loud[-1] + 1 + margin, frames) / 100


def trim(wave: Wave, keep: float = 0.03) -> Wave:
    """`wave` (16 kHz) without the silence at its ends, `keep` seconds of it left."""
    if len(wave) < RATE // 100:
        return wave
    first, last = ends(wave, keep)
    return wave[round(first * RATE) : round(last * RATE)]


def overheard(utterance: Utterance, rng: np.random.Generator, distorted: float) -> Wave:
    """The utterance between the silences that a turn has, with chance `distorted` not clean."""
    wave = trim(hear(utterance))
    if rng.random() < 0.4:
        wave = change_speed(wave, rng.uniform(0.88, 1.14))
    ends = [int(rng.uniform(*span) * RATE) for span in (LEAD, TAIL)]
    wave = np.pad(wave, (ends[0], ends[1])).astype(np.float32)
    if rng.random() < distorted:
        return distort(wave, rng)
    return add_noise(wave * np.float32(rng.uniform(0.15, 1.0)), rng.uniform(35, 60), rng)


def tokenise_questions(
    utterances: Sequence[Utterance], path: Path, distorted: float, encode: EncodeAll
) -> None:
    """Writes one shard: the tokens of each utterance as a microphone hears it; see `overheard`."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    tokens = encode([overheard(u, rng, distorted) for u in utterances])
    names = [(u.text, f"{u.voice} {u.rate}") for u in utterances]
    save([(*name, codes) for name, codes in zip(names, tokens, strict=True)], path)


def tokenise_noises(count: int, path: Path, encode: EncodeAll) -> None:
    """Writes the tokens of `count` recordings without a voice: a room's, a kitchen's, silence."""
    rng = np.random.default_rng(zlib.crc32(path.name.encode()))
    waves = []
    for _ in range(count):
        loud = 10 ** (rng.uniform(*NOISE_LEVEL) / 20)
        wave = loud * draw_noise(int(rng.uniform(*NOISE_SECONDS) * RATE), rng)
        waves.append(recorded(wave.astype(np.float32)))
    save([("", "noise", codes) for codes in encode(waves)], path)


def shards(folder: Path) -> list[Path]:
    """The finished shards of questions in `folder`."""
    return sorted(p for p in folder.glob("questions-*.npz") if ".part" not in p.name)


def next_shard(folder: Path) -> int:
    """The number of a new shard: after all others, as a run that was stopped leaves gaps."""
    return 1 + max((int(path.stem.split("-")[1]) for path in shards(folder)), default=-1)


def tokenised(folder: Path) -> Counter[Utterance]:
    """How many takes of each utterance are in the shards of `folder`."""
    done: Counter[Utterance] = Counter()
    for path in shards(folder):
        for text, who, _ in rows_of(path):
            voice, rate = who.split()
            done[Utterance(text, voice, float(rate))] += 1
    return done


def stretch(tokens: Tokens, style: Style) -> Tokens:
    """`tokens` said slower or faster: codes of both streams repeated or left out evenly."""
    return paced(tokens, *STRETCH[style])


def paced(tokens: Tokens, read: int, write: int) -> Tokens:
    """`tokens` with `write` codes of both streams for `read` of them, repeated or left out."""
    groups = tokens.reshape(-1, GROUP_TOKENS)
    streams = [groups[:, :2].reshape(-1), groups[:, 2:].reshape(-1)]
    count = len(groups) * write // read
    picked = [
        stream[np.minimum(np.arange(count * per) * read // write, len(stream) - 1)]
        for stream, per in zip(streams, (2, 3), strict=True)
    ]
    woven = np.concatenate([picked[0].reshape(-1, 2), picked[1].reshape(-1, 3)], 1)
    return np.asarray(woven.reshape(-1), np.uint16)


def as_answer(utterance: Utterance) -> Wave:
    """The utterance (16 kHz) between the silences that an answer has."""
    return np.pad(trim(hear(utterance), ANSWER_KEEP), (0, int(ANSWER_TAIL * RATE)))


def add_answers(texts: Sequence[str], path: Path, encode: Encode) -> None:
    """Adds to the answers in `path` what the teacher says of `texts`, as he says it first."""
    said = [(text, "plain", encode(as_answer(Utterance(text, TEACHER)))) for text in texts]
    save([*rows_of(path), *said], path)


def tokenise_answers(answers: Mapping[str, Utterance | Tokens], path: Path, encode: Encode) -> None:
    """Writes every answer as the teacher says it, and the slow and the fast of it.

    An answer whose tokens are known already is given as these. A mood is a voice of the vocoder's:
    its tokens are the plain ones.
    """
    rows: list[tuple[str, str, Sequence[int] | Tokens]] = []
    for text, said in answers.items():
        tokens = encode(as_answer(said)) if isinstance(said, Utterance) else said
        plain = np.asarray(tokens, np.uint16)
        rows.append((text, "plain", plain))
        rows += [(text, style, stretch(plain, style)) for style in STRETCH]
    save(rows, path)


def save(rows: Sequence[tuple[str, str, Sequence[int] | Tokens]], path: Path) -> None:
    """One file of (text, style, audio tokens) rows; whole or not at all."""
    partial = path.with_suffix(".part.npz")
    np.savez_compressed(
        partial,
        tokens=np.concatenate([np.asarray(tokens, np.uint16) for _, _, tokens in rows]),
        lengths=np.array([len(tokens) for _, _, tokens in rows]),
        rows=json.dumps([[text, style] for text, style, _ in rows]),
    )
    partial.replace(path)


def rows_of(path: Path) -> list[tuple[str, str, Tokens]]:
    """What `save` wrote."""
    with np.load(path) as file:
        pieces = np.split(file["tokens"], np.cumsum(file["lengths"])[:-1])
        names = json.loads(str(file["rows"]))
    return [(text, style, piece) for (text, style), piece in zip(names, pieces, strict=True)]


def load_material(folder: Path) -> Material:
    """All shards of `folder` that exist, and its answers."""
    material = Material()
    for path in shards(folder):
        for text, who, tokens in rows_of(path):
            material.questions.setdefault(text, []).append(tokens)
            if VOICES[who.split()[0]].human:
                material.human.add(text)
    for text, style, tokens in rows_of(folder / "answers.npz"):
        material.answers[(text, style)] = tokens  # type: ignore[index]
    if (folder / "noises.npz").exists():
        material.noises = [tokens for _, _, tokens in rows_of(folder / "noises.npz")]
    return material


def roughen(tokens: Tokens, rng: random.Random, rate: float) -> list[int]:
    """`tokens` with a share `rate` of codes replaced by others of the same book."""
    out = [int(token) for token in tokens]
    for place in range(len(out)):
        if rng.random() < rate:
            linguistic = out[place] < LINGUISTIC_CODES
            out[place] = rng.randrange(1024) if linguistic else 1024 + rng.randrange(4096)
    return out


def blurred(tokens: Sequence[int], rng: random.Random, longest: int) -> list[int]:
    """`tokens` with a stretch of up to `longest` of them replaced by others of the same books."""
    out = [*tokens]
    length = min(rng.randrange(longest + 1), len(out) // 3)
    start = rng.randrange(len(out) - length + 1)
    out[start : start + length] = roughen(np.asarray(out[start : start + length]), rng, 1.0)
    return out
