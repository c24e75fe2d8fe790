"""CosyVoice-1.0's speech tokenizer, small and chunk-causal.

As published: two stride-2 convolutions, sinusoid positions, pre-LN blocks with whisper's attention
(no bias on keys), no final norm, vectors of unit length against a plain codebook. Ours alone is the
attention's mask: time is cut into blocks of 6 tokens (240 ms), and a token sees its own block and
`BLOCKS_BACK` before it. So a stream, run block by block, gives the tokens of the whole.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqaa.recipe.precision import attend
from aqaa.recipe.vq import Codebook

MELS = 128
WIDTH, HEADS, LAYERS = 256, 4, 3
CODES = 4096
BLOCK = 6  # tokens of 40 ms
BLOCKS_BACK = 4
POSITIONS = 1500  # 30 s, the published table
CHUNK_MS = 240
# The receptive field: what every layer looks back on, and one block for the convolutions' edge.
LEFT_MS = CHUNK_MS * (LAYERS * BLOCKS_BACK + 1)


def sinusoids() -> Tensor:
    """Whisper's table [1500, width]: sines then cosines, time scales up to 10,000."""
    step = math.log(10000.0) / (WIDTH // 2 - 1)
    angles = torch.arange(POSITIONS)[:, None] * torch.exp(-step * torch.arange(WIDTH // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def block_mask(tokens: int) -> Tensor:
    """bool [tokens, tokens]: which keys a query sees."""
    block = torch.arange(tokens) // BLOCK
    behind = block[:, None] - block[None]
    return (behind >= 0) & (behind <= BLOCKS_BACK)


class Attention(nn.Module):
    """Whisper's multi-head attention."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, width] and bool [T, T] -> [B, T, width]."""
        q, k, v = (
            part(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        mixed = attend(q, k, v, mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Pre-LN attention and an MLP of four times the width with exact GELU."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attn_ln = nn.LayerNorm(WIDTH)
        self.attn = Attention()
        self.mlp_ln = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        x = x + self.dropout(self.attn(self.attn_ln(x), mask))
        fed: Tensor = self.dropout(self.mlp(self.mlp_ln(x)))
        return x + fed


class SemanticEncoder(nn.Module):
    """Log-mel to unit vectors, and the codebook that makes tokens of them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(MELS, WIDTH, 3, 2, 1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, 2, 1)
        self.blocks = nn.ModuleList([Block(dropout) for _ in range(LAYERS)])
        self.codebook = Codebook(CODES, WIDTH)
        self.register_buffer("positions", sinusoids(), persistent=False)
        self.positions: Tensor

    def forward(self, mel: Tensor, start: int = 0) -> Tensor:
        """Unit vectors [B, ceil(ceil(T / 2) / 2), width] of log-mel [B, 128, T] from `start` on."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        tokens = x.shape[1]
        x = x + self.positions[start : start + tokens]
        mask = block_mask(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return F.normalize(x, dim=-1)

    @torch.no_grad()
    def tokens(self, mel: Tensor) -> Tensor:
        """int64 [B, ceil(ceil(T / 2) / 2)]."""
        return self.codebook.nearest(self(mel))
