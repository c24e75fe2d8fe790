"""What the flow learns from: tokens of a recording, and the mel that they are to become.

Besides every recording with its own mel there are joe's pieces slowed and quickened as the
decoder's material is, and *parallel* pieces: joe's tokens with alpha's mel of the same sentence,
warped to joe's timing. The decoder only ever says joe's tokens, so this is what the female voice
will be asked for; and it keeps the flow from reading the speaker off the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from aqaa.models.bundle import GROUP_TOKENS, TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.recipe.decoder.clips import STRETCH, EncodeAll, stretch
from aqaa.models.recipe.domain.load import Style
from aqaa.models.recipe.vocoder.corpus import Recording
from aqaa.models.recipe.vocoder.settings import GROUP_FRAMES

CEPSTRA = 13  # of the mel, for alignment: the coarse shape of the spectrum, not its harmonics
TEMPOS: tuple[Style, ...] = ("slow", "fast")
SILENCE = -9.0  # log mel; what is softer is the recording's noise floor, not the speaker
SLOPE_COST = 0.3  # added to every step that stretches time, so that silence is not folded at will


@dataclass(frozen=True)
class Piece:
    """One training example of the flow.

    Attributes:
        tokens: audio tokens int64 [5 G].
        mel: float32 [80, floor(G * 10.336)], of the sound that the tokens stand for.
        speaker: whose voice the mel is in.
    """

    tokens: Tensor
    mel: Tensor
    speaker: str


def tokenise(recordings: list[Recording], encode_all: EncodeAll) -> list[list[int]]:
    """Audio tokens of every recording, as many groups as its mel has whole ones."""
    waves = [
        soxr.resample(r.wave.numpy(), VOCODER_RATE, TOKENIZER_RATE).astype(np.float32)
        for r in recordings
    ]
    fitting = [int(r.mel.shape[1] / GROUP_FRAMES) * GROUP_TOKENS for r in recordings]
    return [ids[:n] for ids, n in zip(encode_all(waves), fitting, strict=True)]


def pieces(recordings: list[Recording], tokens: list[list[int]]) -> list[Piece]:
    """Every recording's own piece, joe's also slower and faster, then the parallel ones."""
    heard = list(zip(tokens, recordings, strict=True))
    female = {
        r.utterance.text: r
        for r in recordings
        if r.utterance.voice == "alpha" and r.utterance.rate == 1.0
    }
    made = [_piece(t, r.mel, r.utterance.voice) for t, r in heard]
    for t, r in heard:
        if r.utterance.voice == "joe" and r.mood == "plain" and t:
            made += [_stretched(t, r.mel, style) for style in TEMPOS]
    made += [
        _piece(t, warp(r.mel, female[r.utterance.text].mel), "alpha")
        for t, r in track(heard, "warping")
        if r.utterance.voice == "joe" and r.mood == "plain" and r.utterance.text in female
    ]
    return [p for p in made if len(p.tokens)]


def _piece(tokens: list[int], mel: Tensor, speaker: str) -> Piece:
    groups = min(len(tokens) // GROUP_TOKENS, int(mel.shape[1] / GROUP_FRAMES))
    return Piece(
        torch.tensor(tokens[: groups * GROUP_TOKENS], dtype=torch.int64),
        mel[:, : int(groups * GROUP_FRAMES)],
        speaker,
    )


def _stretched(tokens: list[int], mel: Tensor, style: Style) -> Piece:
    """joe in another tempo, as the decoder's material has it: codes repeated or left out."""
    read, write = STRETCH[style]
    other = stretch(np.asarray(tokens, np.uint16), style)
    frames = int(mel.shape[1] * write / read)
    where = ((torch.arange(frames) + 0.5) * read / write - 0.5).clamp(0, mel.shape[1] - 1)
    return _piece([int(t) for t in other], _at(mel, where), "joe")


def _at(mel: Tensor, where: Tensor) -> Tensor:
    """`mel` [80, T] at the frames `where` [F], linearly between them: [80, F]."""
    left = where.floor().long().clamp(0, mel.shape[1] - 1)
    right = (left + 1).clamp(max=mel.shape[1] - 1)
    return torch.lerp(mel[:, left], mel[:, right], (where - left).float())


def warp(guide: Tensor, mel: Tensor) -> Tensor:
    """`mel` float32 [80, B] on the time of `guide` [80, A], which says the same words: [80, A]."""
    return _at(mel, torch.from_numpy(align(guide.numpy(), mel.numpy())))


def align(guide: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """For every frame of `guide` [80, A] the place in `other` [80, B] of the same sound: [A].

    Dynamic time warping of cepstra, each normalised over its utterance, which takes most of the
    speaker away. A frame that meets several is placed at their mean.
    """
    a, b = _cepstra(guide), _cepstra(other)
    cost = np.sqrt(((a[:, None] - b[None]) ** 2).mean(-1))
    rows, columns = cost.shape
    total = np.full((rows, columns), np.inf)
    for i in range(rows):
        if i:
            stay, move = total[i - 1] + SLOPE_COST, np.append(np.inf, total[i - 1, :-1])
            enter = np.minimum(stay, move) + cost[i]
        else:
            enter = np.append(cost[0, 0], np.full(columns - 1, np.inf))
        run = np.cumsum(cost[i] + SLOPE_COST)  # cost of walking along the row
        total[i] = np.minimum.accumulate(enter - run) + run
    place = np.zeros(rows)
    count = np.zeros(rows)
    i, j = rows - 1, columns - 1
    while True:
        place[i] += j
        count[i] += 1
        if i == 0 and j == 0:
            return place / count
        steps = [
            (total[i - 1, j - 1] if i and j else np.inf, i - 1, j - 1),
            (total[i - 1, j] + SLOPE_COST if i else np.inf, i - 1, j),
            (total[i, j - 1] + SLOPE_COST if j else np.inf, i, j - 1),
        ]
        _, i, j = min(steps)


def _cepstra(mel: NDArray[np.float32]) -> NDArray[np.float64]:
    """Normalised cepstra [T, CEPSTRA] of mel [80, T]."""
    bands = len(mel)
    waves = np.cos(np.pi / bands * np.outer(np.arange(CEPSTRA), np.arange(bands) + 0.5))
    shape = (waves @ np.maximum(mel, SILENCE)).T
    normed: NDArray[np.float64] = (shape - shape.mean(0)) / (shape.std(0) + 1e-3)
    return normed
