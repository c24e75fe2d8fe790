"""The words' head as both of its trainings use it: beside the encoder's own, and after it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from aqaa.recipe.speech.batches import Row
from aqaa.recipe.transcriber.pieces import Spelling
from aqaa.tokenizers.transcriber_ctc import SILENCE, CtcHead

INNER, KERNEL, BLOCKS, ROWS = 256, 9, 3, 2  # 27 frames of 60 ms are heard; 33 rows a second


def head_for(width: int, spelling: Spelling) -> CtcHead:
    """A new head for an encoder of `width`."""
    return CtcHead(width, INNER, KERNEL, BLOCKS, ROWS, len(spelling.pieces))


def with_silence(states: Tensor) -> Tensor:
    """`states` [B, T, width] and the zero frames that end an utterance."""
    return F.pad(states, (0, 0, 0, SILENCE))


def spelt(row: Row, spelling: Spelling) -> list[int]:
    """The pieces of all that is said in `row`."""
    return spelling.encode(" ".join(placed.clip.text for placed in row.placed))
