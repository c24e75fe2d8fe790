"""FunASR's `SANMEncoderChunkOpt` in Step-Audio's streaming regime, all windows of a clip at once.

The published code steps through an utterance window by window, 9 frames each, with cached keys and
values: right for serving, but hopeless for training. What a window sees is fixed, so here all
windows are unfolded into one batch, layer by layer, and cached keys and values are gathered from
the windows before. Tensor names are FunASR's, and `test_recipe_linguistic` holds that the output is
that of its `forward_chunk` loop.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqaa.recipe.precision import attend

BACK, NEW = 5, 4  # chunk_size=[0, 4, 5]: a window is 5 old frames and 4 new ones
WINDOW = BACK + NEW
LOOK_BACK = 4  # windows whose 4 oldest frames stay in the key-value cache
KERNEL = 11
EPSILON = 1e-12  # FunASR's LayerNorm


def positions(frames: int, width: int, device: torch.device) -> Tensor:
    """FunASR's sinusoids [frames, width]: positions from 1, sines then cosines."""
    step = math.log(10000.0) / (width / 2 - 1)
    inverse = torch.exp(torch.arange(width // 2, device=device) * -step)
    angles = torch.arange(1, frames + 1, device=device)[:, None] * inverse[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


def unfold(frames: Tensor) -> Tensor:
    """[B, 4C, D] -> windows [B, C, 9, D]; the first begins with five zero frames."""
    padded = F.pad(frames, (0, 0, BACK, 0))
    return padded.unfold(1, WINDOW, NEW).transpose(2, 3)


def _with_cache(x: Tensor) -> Tensor:
    """[B, C, 9, D] -> [B, C, 25, D]: before each window, the 4 oldest frames of the 4 before it."""
    b, c, _, d = x.shape
    oldest = F.pad(x[:, :, :NEW], (0, 0, 0, 0, LOOK_BACK, 0))  # [B, C + 4, 4, D]
    before = torch.cat([oldest[:, i : i + c] for i in range(LOOK_BACK)], 2)
    return torch.cat([before.reshape(b, c, LOOK_BACK * NEW, d), x], 2)


def _cache_mask(chunks: int, device: torch.device) -> Tensor:
    """[C, 1, 1, 25], 0 where a key exists, else minus infinity: the first windows lack some."""
    before = torch.arange(LOOK_BACK * NEW, device=device) // NEW  # 0 is the oldest
    exists = torch.arange(chunks, device=device)[:, None] >= LOOK_BACK - before[None]
    missing = torch.zeros(exists.shape, device=device).masked_fill(~exists, -math.inf)
    return F.pad(missing, (0, WINDOW))[:, None, None]


class _Attention(nn.Module):
    def __init__(self, inner: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linear_q_k_v = nn.Linear(inner, 3 * width)
        self.linear_out = nn.Linear(width, width)
        self.fsmn_block = nn.Conv1d(width, width, KERNEL, groups=width, bias=False)

    def _memory(self, v: Tensor) -> Tensor:
        """FSMN: v plus its depthwise convolution, inside each window: [N, 9, D]."""
        # As a 9 x 9 Toeplitz matrix per channel: far faster than a depthwise conv1d on a CPU.
        places = torch.arange(WINDOW, device=v.device)
        offset = places[:, None] - places[None] + KERNEL // 2
        inside = (offset >= 0) & (offset < KERNEL)
        kernel = self.fsmn_block.weight[:, 0][:, offset.clamp(0, KERNEL - 1)] * inside
        return v + torch.bmm(v.permute(2, 0, 1), kernel).permute(1, 2, 0)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, c, _, _ = x.shape
        q, k, v = self.linear_q_k_v(x).chunk(3, -1)
        width = q.shape[-1]

        def split(t: Tensor) -> Tensor:
            return t.reshape(b * c, t.shape[2], self.heads, -1).transpose(1, 2)

        mixed = attend(split(q), split(_with_cache(k)), split(_with_cache(v)), mask)
        out: Tensor = self.linear_out(mixed.transpose(1, 2).reshape(b, c, WINDOW, width))
        return out + self._memory(v.reshape(b * c, WINDOW, width)).view(b, c, WINDOW, width)


class _FeedForward(nn.Module):
    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, units)
        self.w_2 = nn.Linear(units, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w_2(torch.relu(self.w_1(x)))
        return out


class _Layer(nn.Module):
    def __init__(self, inner: int, width: int, heads: int, units: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(inner, width, heads)
        self.feed_forward = _FeedForward(width, units)
        self.norm1 = nn.LayerNorm(inner, eps=EPSILON)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = nn.Dropout(dropout)
        self.residual = inner == width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        attended: Tensor = self.dropout(self.self_attn(self.norm1(x), mask))
        x = x + attended if self.residual else attended.float()  # the sum of all layers is float32
        fed: Tensor = self.dropout(self.feed_forward(self.norm2(x)))
        return x + fed


class WindowedEncoder(nn.Module):
    """The encoder; its `state_dict` is that of FunASR's `SANMEncoderChunkOpt`."""

    def __init__(
        self, inner: int, width: int, heads: int, units: int, blocks: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.encoders0 = nn.ModuleList([_Layer(inner, width, heads, units, dropout)])
        self.encoders = nn.ModuleList(
            [_Layer(width, width, heads, units, dropout) for _ in range(blocks - 1)]
        )
        self.after_norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, features: Tensor) -> Tensor:
        """Emitted frames of a stream of whole chunks.

        Args:
            features: normalised stacked features, float32 [B, 4C, 560].

        Returns:
            float32 [B, 4C, width]: of every window, its 4 newest frames (no look-ahead).
        """
        _, frames, inner = features.shape
        x = unfold(features * math.sqrt(self.width) + positions(frames, inner, features.device))
        mask = _cache_mask(x.shape[1], x.device).repeat(x.shape[0], 1, 1, 1)
        for layer in [*self.encoders0, *self.encoders]:
            x = layer(x, mask)
        out: Tensor = self.after_norm(x[:, :, BACK:])
        return out.flatten(1, 2)
