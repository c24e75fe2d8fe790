"""What the flow learns from: tokens of a sentence, and the mel that they are to become.

Every voice's mel has the teacher's tokens, since the decoder only ever says those; the teacher's
own pieces are also slowed and quickened as the decoder's material is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aqaa.models.groups import GROUP_TOKENS
from aqaa.recipe.decoder.clips import STRETCH, stretch
from aqaa.recipe.domain.load import Style
from aqaa.recipe.speech.voices import TEACHER
from aqaa.recipe.vocoder.corpus import Sentence
from aqaa.recipe.vocoder.settings import GROUP_FRAMES

TEMPOS: tuple[Style, ...] = ("slow", "fast")


@dataclass(frozen=True)
class Piece:
    """One training example of the flow.

    Attributes:
        tokens: audio tokens int64 [5 G].
        mel: float32 [80, floor(G * 10.336)], of the sound that the tokens stand for.
        voice: whose the mel is.
        tempo: "plain", "slow" or "fast".
        stress: how often it is drawn, against others of its length and voice.
    """

    tokens: Tensor
    mel: Tensor
    voice: str
    tempo: Style = "plain"
    stress: float = 1.0


def pieces(
    sentences: Iterable[Sentence], stress: Mapping[tuple[str, str], float] | None = None
) -> list[Piece]:
    """Every sentence in every voice, and in the teacher's slower and faster.

    Args:
        sentences: what is said.
        stress: of a text in a voice, where it is not 1.
    """
    made = []
    for sentence in sentences:
        if not len(sentence.tokens):
            continue
        said = [_piece(sentence.tokens, r.mel, n, "plain") for n, r in sentence.voices.items()]
        mel = sentence.voices[TEACHER].mel
        said += [_stretched(sentence.tokens, mel, tempo) for tempo in TEMPOS]
        often = stress or {}
        made += [replace(p, stress=often.get((sentence.text, p.voice), 1.0)) for p in said]
    return made


def _piece(tokens: Tensor, mel: Tensor, voice: str, tempo: Style) -> Piece:
    groups = min(len(tokens) // GROUP_TOKENS, int(mel.shape[1] / GROUP_FRAMES))
    return Piece(
        tokens[: groups * GROUP_TOKENS], mel[:, : int(groups * GROUP_FRAMES)], voice, tempo
    )


def _stretched(tokens: Tensor, mel: Tensor, tempo: Style) -> Piece:
    """The teacher in another tempo, as the decoder has it: codes repeated or left out."""
    read, write = STRETCH[tempo]
    other = torch.from_numpy(stretch(tokens.numpy().astype(np.uint16), tempo).astype(np.int64))
    frames = int(mel.shape[1] * write / read)
    where = ((torch.arange(frames) + 0.5) * read / write - 0.5).clamp(0, mel.shape[1] - 1)
    left = where.floor().long()
    right = (left + 1).clamp(max=mel.shape[1] - 1)
    slowed = torch.lerp(mel[:, left], mel[:, right], where - left)
    return _piece(other, slowed, TEACHER, tempo)
