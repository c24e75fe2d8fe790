"""The network of the words, its size and its targets."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from aqaa.recipe.speech.batches import Row
from aqaa.recipe.transcriber.pieces import Spelling
from aqaa.tokenizers.transcriber_ctc import SILENCE, CtcHead

INNER, KERNEL, BLOCKS, ROWS = 256, 9, 8, 2  # 65 frames of 60 ms are heard; 33 rows a second


def head_for(width: int, spelling: Spelling) -> CtcHead:
    """A new one for frames of `width`."""
    return CtcHead(width, INNER, KERNEL, BLOCKS, ROWS, len(spelling.pieces))


def with_silence(frames: Tensor) -> Tensor:
    """`frames` [B, T, width] and the zero frames that end an utterance."""
    return F.pad(frames, (0, 0, 0, SILENCE))


def spelt(row: Row, spelling: Spelling) -> list[int]:
    """The pieces of all that is said in `row`."""
    return spelling.encode(" ".join(placed.clip.text for placed in row.placed))
