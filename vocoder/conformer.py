"""The flow's text-side encoder: a pre-norm transformer with relative positions.

CosyVoice calls it a conformer; its convolution and macaron halves are switched off in every
published file, so they are not here. Tensor names are the published ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqaa.vocoder.config import EncoderConfig
from aqaa.vocoder.padding import Mask, keys_of

NORM_EPS = 1e-5  # SPEC 7.1


class ConformerEncoder(nn.Module):
    """[B, T, input_size] to [B, T, output_size]; every position sees every other."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.output_size
        self.size = size
        self.embed = nn.ModuleDict(
            {"out": nn.Sequential(nn.Linear(config.input_size, size), nn.LayerNorm(size, NORM_EPS))}
        )
        self.encoders = nn.ModuleList(_Layer(config) for _ in range(config.num_blocks))
        self.after_norm = nn.LayerNorm(size, NORM_EPS)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, mask: Mask = None) -> Tensor:
        """Encode x [B, T, input_size]; `mask` [B, 1, T]: which positions are no padding."""
        keys = keys_of(mask)
        distances = relative_positions(x.shape[1], self.size, x.device).to(x)
        x = self.dropout(self.embed["out"](x) * math.sqrt(self.size))
        distances = self.dropout(distances)
        for layer in self.encoders:
            x = layer(x, distances, keys)
        out: Tensor = self.after_norm(x)
        return out


class _Layer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.output_size
        self.self_attn = _RelativeAttention(size, config.attention_heads)
        self.feed_forward = _FeedForward(size, config.linear_units, config.dropout_rate)
        self.norm_ff = nn.LayerNorm(size, NORM_EPS)
        self.norm_mha = nn.LayerNorm(size, NORM_EPS)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, distances: Tensor, keys: Tensor | None) -> Tensor:
        x = x + self.dropout(self.self_attn(self.norm_mha(x), distances, keys))
        out: Tensor = x + self.dropout(self.feed_forward(self.norm_ff(x)))
        return out


class _FeedForward(nn.Module):
    def __init__(self, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.w_1 = nn.Linear(size, hidden)
        self.w_2 = nn.Linear(hidden, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w_2(self.dropout(functional.silu(self.w_1(x))))
        return out


class _RelativeAttention(nn.Module):
    """Transformer-XL attention: score = ((q+u)k + (q+v)p[i-j]) / sqrt(d)."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q = nn.Linear(size, size)
        self.linear_k = nn.Linear(size, size)
        self.linear_v = nn.Linear(size, size)
        self.linear_out = nn.Linear(size, size)
        self.linear_pos = nn.Linear(size, size, bias=False)
        self.pos_bias_u = nn.Parameter(torch.empty(heads, size // heads))
        self.pos_bias_v = nn.Parameter(torch.empty(heads, size // heads))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward(self, x: Tensor, distances: Tensor, keys: Tensor | None) -> Tensor:
        batch, length, size = x.shape
        q, k, v = (
            linear(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        p = self.linear_pos(distances).view(2 * length - 1, self.heads, -1).permute(1, 2, 0)
        by_distance = (q + self.pos_bias_v[:, None]) @ p  # [B, H, T, 2T-1], column = T-1 - (i-j)
        bias = _align(by_distance) / math.sqrt(q.shape[-1])
        if keys is not None:
            bias = bias.masked_fill(~keys, -math.inf)
        mixed = functional.scaled_dot_product_attention(
            q + self.pos_bias_u[:, None], k, v, attn_mask=bias
        )
        out: Tensor = self.linear_out(mixed.transpose(1, 2).reshape(batch, length, size))
        return out


def _align(by_distance: Tensor) -> Tensor:
    """[B, H, T, 2T-1] by distance to [B, H, T, T] by key: out[i, j] = in[i, T-1-i+j].

    Row i of the result begins T-1-i columns in: read flat, one element less every row.
    """
    batch, heads, length, width = by_distance.shape
    flat = by_distance.reshape(batch, heads, length * width)
    rows = functional.pad(flat[..., length - 1 :], (0, length - 1))
    rows = rows[..., : length * (width - 1)].view(batch, heads, length, width - 1)
    return rows[..., :length] if length > 1 else by_distance


def relative_positions(length: int, size: int, device: torch.device) -> Tensor:
    """Sinusoids float32 [2*length-1, size] of the distances length-1 ... -(length-1)."""
    distance = torch.arange(length - 1, -length, -1, dtype=torch.float32, device=device)[:, None]
    pairs = torch.arange(0, size, 2, dtype=torch.float32, device=device)
    rate = torch.exp(pairs * -(math.log(10_000.0) / size))
    return torch.stack([torch.sin(distance * rate), torch.cos(distance * rate)], dim=-1).flatten(1)
