"""How likely pieces of words follow each other: a small recurrent network, piece after piece.

    pieces -> embedding [V, width] -> GRU -> Linear to width -> scores by the same embedding

Piece 0, the recogniser's blank, stands for both ends of what is said: the first piece follows it,
and it follows the last.

File: `language.safetensors` in the transcriber's folder, with this module's tensors (any float
type), from whose shapes all sizes are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

END = 0
DROPOUT = 0.2  # in training


@dataclass(frozen=True, eq=False)
class Following:
    """What may follow in one place.

    `logprobs`: float32 [V], natural; `hidden` [1, 1, H] is the network's state there.
    """

    logprobs: NDArray[np.float32]
    hidden: Tensor


class LanguageModel(nn.Module):
    """The network; training and serving share it."""

    def __init__(self, pieces: int, width: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(pieces, width)
        self.recur = nn.GRU(width, hidden, batch_first=True)
        self.narrow = nn.Linear(hidden, width)
        self.bias = nn.Parameter(torch.zeros(pieces))
        self.dropout = nn.Dropout(DROPOUT)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with these weights.

        Raises:
            KeyError, ValueError, RuntimeError: they are something else's.
        """
        pieces, width = state["embed.weight"].shape
        model = cls(pieces, width, state["recur.weight_hh_l0"].shape[1])
        model.load_state_dict(state)
        return model.float().eval()

    def forward(self, pieces: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log probabilities [B, T, V] of what follows each of `pieces` [B, T]; the next state."""
        states, hidden = self.recur(self.dropout(self.embed(pieces)), hidden)
        scores = self.narrow(self.dropout(states)) @ self.embed.weight.T + self.bias
        return F.log_softmax(scores.float(), -1), hidden

    def begin(self) -> Following:
        """What may be said first."""
        return self._read([END], None)[0]

    def follow(self, said: Sequence[tuple[Following, int]]) -> list[Following]:
        """What may follow when in each place that piece is said."""
        hidden = torch.cat([place.hidden for place, _ in said], 1)
        return self._read([piece for _, piece in said], hidden)

    @torch.inference_mode()
    def _read(self, pieces: Sequence[int], hidden: Tensor | None) -> list[Following]:
        logprobs, after = self(torch.tensor(pieces)[:, None], hidden)
        rows = logprobs[:, 0].numpy()
        return [Following(row, after[:, k : k + 1]) for k, row in enumerate(rows)]
