"""The flow's velocity field: a 1-D U-Net of ResNet and transformer blocks (Matcha-TTS's decoder).

Tensor names are the published ones. The published attention ignores padding; here it is masked, so
that a batch may hold sequences of several lengths (`vocoder.padding`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqaa.vocoder.config import EstimatorConfig
from aqaa.vocoder.padding import Mask, group_norm, halved, keys_of, masked

NORM_GROUPS = 8  # of every GroupNorm in the U-Net (SPEC 7.1)
TIME_SCALE = 1000.0  # t in [0, 1] is embedded as 1000 t


class Estimator(nn.Module):
    """Velocity at time t of the path from noise to mel."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        channels = config.channels
        time_size = 4 * channels[0]
        count = config.n_blocks
        self.time_mlp = _TimeEmbedding(config.in_channels, time_size)

        def stage(inputs: int, outputs: int, resample: nn.Module) -> _Stage:
            blocks = nn.Sequential(*(_TransformerBlock(outputs, config) for _ in range(count)))
            return _Stage([_ResnetBlock(inputs, outputs, time_size), blocks, resample])

        def same(size: int) -> nn.Module:
            return nn.Conv1d(size, size, 3, padding=1)

        last = len(channels) - 1
        self.down_blocks = nn.ModuleList()
        inputs = config.in_channels
        for i, size in enumerate(channels):
            self.down_blocks.append(stage(inputs, size, same(size) if i == last else _Halve(size)))
            inputs = size
        self.mid_blocks = nn.ModuleList(
            stage(inputs, inputs, nn.Identity()) for _ in range(config.num_mid_blocks)
        )
        self.up_blocks = nn.ModuleList()
        for i, size in enumerate([*channels[-2::-1], channels[0]]):
            self.up_blocks.append(
                stage(2 * inputs, size, same(size) if i == last else _Double(size))
            )
            inputs = size
        self.final_block = _ConvBlock(inputs, inputs)
        self.final_proj = nn.Conv1d(inputs, config.out_channels, 1)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        t: Tensor,
        speaker: Tensor,
        cond: Tensor,
        mask: Mask = None,
    ) -> Tensor:
        """The velocity [B, M, T], in the network's dtype.

        Args:
            x: the path's point, [B, M, T].
            mu: the encoder's mel estimate, [B, M, T].
            t: time of each row in [0, 1], float32 [B].
            speaker: projected speaker embedding, [B, M].
            cond: mel of the frames that are known, zero elsewhere, [B, M, T].
            mask: which frames are no padding, [B, 1, T].
        """
        time = self.time_mlp(t)
        x = torch.cat([x, mu, speaker[:, :, None].expand_as(x), cond], dim=1)
        skips = []
        for i, down in enumerate(self.down_blocks):
            skip, x = down(x, time, mask)
            skips.append((skip, mask))
            if i < len(self.down_blocks) - 1:  # all but the last halve the frames
                mask = halved(mask)
        for mid in self.mid_blocks:
            _, x = mid(x, time, mask)
        for up in self.up_blocks:
            skip, mask = skips.pop()
            _, x = up(torch.cat([x[:, :, : skip.shape[-1]], skip], dim=1), time, mask)
        out: Tensor = self.final_proj(self.final_block(x, mask))
        return out


class _Stage(nn.ModuleList):
    """[ResNet block, transformer blocks, resampling], in the published order."""

    def forward(self, x: Tensor, time: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        """x [B, C, T] before and after the resampling."""
        resnet, blocks, resample = self
        h, keys = resnet(x, time, mask).transpose(1, 2), keys_of(mask)
        for block in blocks.children():
            h = block(h, keys)
        h = h.transpose(1, 2)
        return h, resample(masked(h, mask))


class _TimeEmbedding(nn.Module):
    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.waves = size // 2
        self.linear_1 = nn.Linear(size, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, t: Tensor) -> Tensor:
        waves = torch.arange(self.waves, dtype=t.dtype, device=t.device)
        rate = torch.exp(waves * -(math.log(10_000.0) / (self.waves - 1)))
        angle = TIME_SCALE * t[:, None] * rate
        both = torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.linear_1.weight)
        out: Tensor = self.linear_2(functional.silu(self.linear_1(both)))
        return out


class _ConvBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, 3, padding=1), nn.GroupNorm(NORM_GROUPS, outputs), nn.Mish()
        )

    def forward(self, x: Tensor, mask: Mask) -> Tensor:
        conv, norm, activation = self.block
        assert isinstance(norm, nn.GroupNorm)
        out: Tensor = activation(group_norm(norm, conv(masked(x, mask)), mask))
        return out


class _ResnetBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, time_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Mish(), nn.Linear(time_size, outputs))
        self.block1 = _ConvBlock(inputs, outputs)
        self.block2 = _ConvBlock(outputs, outputs)
        self.res_conv = nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor, mask: Mask) -> Tensor:
        h = self.block1(x, mask) + self.mlp(time)[:, :, None]
        out: Tensor = self.block2(h, mask) + self.res_conv(x)
        return out


class _Halve(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size, size, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _Double(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(size, size, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class _TransformerBlock(nn.Module):
    def __init__(self, size: int, config: EstimatorConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.attn1 = _SelfAttention(size, config.num_heads, config.attention_head_dim)
        self.norm3 = nn.LayerNorm(size)
        self.ff = nn.ModuleDict(
            {"net": nn.Sequential(_Gelu(size, 4 * size), nn.Identity(), nn.Linear(4 * size, size))}
        )

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), keys)
        out: Tensor = x + self.ff["net"](self.norm3(x))
        return out


class _Gelu(nn.Module):
    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.proj(x))


class _SelfAttention(nn.Module):
    def __init__(self, size: int, heads: int, head_size: int) -> None:
        super().__init__()
        inner = heads * head_size
        self.heads = heads
        self.to_q = nn.Linear(size, inner, bias=False)
        self.to_k = nn.Linear(size, inner, bias=False)
        self.to_v = nn.Linear(size, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, size)])

    def forward(self, x: Tensor, keys: Tensor | None) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            linear(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        out: Tensor = self.to_out[0](mixed.transpose(1, 2).reshape(batch, length, -1))
        return out
