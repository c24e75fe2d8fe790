"""What both tokenizers' codes are asked to keep of the words: phonemes, and what whisper hears."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from aqaa.recipe.speech.phonemes import BLANK


def spelling_loss(log_probabilities: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """CTC per phoneme; rows that speak faster than the frames can spell count nothing."""
    lengths = torch.tensor([len(t) for t in targets])
    steps = torch.full((len(targets),), log_probabilities.shape[1])
    flat = torch.tensor([p for t in targets for p in t], device=log_probabilities.device)
    loss = F.ctc_loss(
        log_probabilities.transpose(0, 1), flat, steps, lengths, BLANK, "sum", zero_infinity=True
    )
    return loss / lengths.sum()


def guided_loss(given: Tensor, states: NDArray[np.float32]) -> Tensor:
    """Mean square of what is missing from the guide's `states` [B, T, 96], where it says any."""
    wanted = torch.from_numpy(states).to(given.device)
    return (given - wanted)[torch.isfinite(wanted)].square().mean()
