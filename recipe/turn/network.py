"""The turn head: a GRU over groups of audio tokens, asked for at any moment.

    5 audio tokens -> their embeddings side by side -> GRU -> one end, and three kinds

`end` is the logit that what was said so far is all; `kinds` are the logits of what the speaker
makes: speech that is meant for the assistant, a backchannel ("mhm", "right"), or none of both (a
cough, dishes, the assistant's own voice). A group is 120 ms; the state goes on from group to group.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS

WIDTH, STATE = 40, 96
KINDS = ("speech", "backchannel", "noise")


class TurnHead(nn.Module):
    """0.3 M parameters; the tensors' names are those of the bundle's file."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(AUDIO_CODES, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(GROUP_TOKENS * WIDTH, STATE, batch_first=True)
        self.end = nn.Linear(STATE, 1)
        self.kind = nn.Linear(STATE, len(KINDS))

    def forward(self, groups: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Logits after every group, and the state to go on from.

        Args:
            groups: audio tokens in [0, 5120), int64 [B, G, 5].
            state: [1, B, 96] of what came before; None at the beginning.

        Returns:
            end [B, G], kinds [B, G, 3], state [1, B, 96].
        """
        heard, after = self.gru(self.dropout(self.embed(groups)).flatten(2), state)
        return self.end(heard)[..., 0], self.kind(heard), after


def probabilities(head: TurnHead, tokens: Tensor) -> tuple[float, list[float]]:
    """Of the end, and of each kind, after `tokens` int64 [5 G]."""
    with torch.inference_mode():
        end, kinds, _ = head(tokens.view(1, -1, GROUP_TOKENS))
        chances: list[float] = kinds[0, -1].softmax(-1).tolist()
        return float(end[0, -1].sigmoid()), chances
