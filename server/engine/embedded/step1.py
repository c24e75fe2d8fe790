"""Step-1, the decoder of Step-Audio, in plain PyTorch for CPUs, in float32.

Pre-norm blocks of grouped-query attention and SwiGLU, no biases, no rotary embedding. Position
enters only through sqrt-ALiBi: `score(i, j) -= slope_head * sqrt(i - j)` (SPEC 6).

Loading fuses the weights (q|k|v and gate|up) and lays them out in reading order. The bias is one
table by distance, made once; for a single query it is a view. A decoding step writes its
activations to buffers that each thread keeps: with so small a decoder, allocating tensors and
making views of them would take half of the time.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from aqaa.models.errors import BundleError
from aqaa.models.step1 import Step1Config, alibi_slopes, weight_files
from aqaa.models.weights import load_state_dict


@dataclass(frozen=True, slots=True)
class _Layer:
    """Fused float32 weights of one block, `[in, out]`.

    The weight of the norm before them is folded into `qkv` and `gate_up`, the scale of the scores
    into q's part.
    """

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class _Past(NamedTuple):
    """What one sequence's new query attends to, by layer: views of its cache, new id included."""

    newest: tuple[Tensor, ...]  # [2 * groups, head_dim], the place of the new id
    keys: tuple[Tensor, ...]  # [groups, head_dim, end]
    values: tuple[Tensor, ...]  # [groups, end, head_dim]
    bias: Tensor  # [groups, heads / groups, end]


class _Buffer:
    """A matrix, and each of its rows as a matrix.

    The product of several rows rounds differently from that of each alone, so a step takes the rows
    one by one.
    """

    def __init__(self, matrix: Tensor) -> None:
        self.all = matrix
        self.rows = torch.split(matrix, 1)


class _Activations:
    """The buffers of a step of `n` sequences, and views of them."""

    def __init__(self, n: int, config: Step1Config) -> None:
        c = config
        self.x, self.unit, self.mixed = (_Buffer(torch.empty(n, c.hidden_size)) for _ in range(3))
        self.qkv = _Buffer(torch.empty(n, c.hidden_size + 2 * c.kv_size))
        self.gate_up = _Buffer(torch.empty(n, 2 * c.intermediate_size))
        gate, self.up = self.gate_up.all.chunk(2, dim=1)
        self.gate = _Buffer(gate)
        grouped = (n, c.num_attention_groups, -1, c.head_dim)
        self.q = self.qkv.all[:, : c.hidden_size].view(grouped).unbind(0)
        self.kv = self.qkv.all[:, c.hidden_size :].view(n, -1, c.head_dim).unbind(0)
        self.mixed_heads = self.mixed.all.view(grouped).unbind(0)


class _Buffers(threading.local):
    """One thread's buffers, by the number of sequences in a step."""

    def __init__(self) -> None:
        self._by_count: dict[int, _Activations] = {}

    def of(self, n: int, config: Step1Config) -> _Activations:
        """The buffers for `n` sequences."""
        if n not in self._by_count:
            self._by_count[n] = _Activations(n, config)
        return self._by_count[n]


class Step1:
    """The weights and the arithmetic; holds no state of any sequence, so threads may share it.

    Each thread has its own buffers; their contents last for one call.
    """

    def __init__(self, config: Step1Config, weights: dict[str, Tensor], context: int) -> None:
        """Fuse `weights` (published names) and make the bias table for `context` positions.

        Raises:
            BundleError: a tensor is missing or does not fit `config`.
        """
        self.config = config
        self.context = context
        c, h = config, config.hidden_size

        def take(name: str, *shape: int) -> Tensor:
            tensor = weights.get(name)
            if tensor is None:
                raise BundleError(f"the decoder's weights lack {name}: is a shard missing?")
            if tuple(tensor.shape) != shape:
                raise BundleError(
                    f"{name} has the shape {list(tensor.shape)}, but config.json asks for "
                    f"{list(shape)}: weights and config.json belong to different checkpoints"
                )
            return tensor.float()

        self._embedding = take("model.embed_tokens.weight", c.vocab_size, h)
        self._layers = []
        for index in range(c.num_hidden_layers):
            at = f"model.layers.{index}."
            attention, mlp, f = at + "self_attn.", at + "mlp.", c.intermediate_size
            q = take(attention + "q_proj.weight", h, h) * c.head_dim**-0.5
            k = take(attention + "k_proj.weight", c.kv_size, h)
            v = take(attention + "v_proj.weight", c.kv_size, h)
            gate, up = take(mlp + "gate_proj.weight", f, h), take(mlp + "up_proj.weight", f, h)
            before = take(at + "input_layernorm.weight", h)
            after = take(at + "post_attention_layernorm.weight", h)
            self._layers.append(
                _Layer(
                    qkv=_by_input(torch.cat((q, k, v)) * before),
                    out=_by_input(take(attention + "o_proj.weight", h, h)),
                    gate_up=_by_input(torch.cat((gate, up)) * after),
                    down=_by_input(take(mlp + "down_proj.weight", h, f)),
                )
            )
        self._norm = take("model.norm.weight", h)
        self._eps = torch.tensor(c.rms_norm_eps)
        self._head = _by_input(take("lm_head.weight", c.vocab_size, h))
        self._buffers = _Buffers()
        # Column t is the bias at distance context-1-t, and -inf for later keys. So the keys 0.. of
        # any query read a contiguous run.
        distance = torch.arange(context - 1, -1, -1, dtype=torch.float32)
        slopes = torch.tensor(alibi_slopes(c.num_attention_heads), dtype=torch.float32)
        self._bias = F.pad(-slopes[:, None] * distance.sqrt(), (0, context - 1), value=-math.inf)

    @classmethod
    def load(cls, directory: Path, context: int | None = None) -> Self:
        """The checkpoint in `directory`: `model.safetensors`, or shards and their index.

        Args:
            directory: the published Hugging Face layout.
            context: positions to prepare for; None takes the checkpoint's `max_seq_len`.

        Raises:
            BundleError: a file is missing or damaged, or a tensor is missing or does not fit.
        """
        config = Step1Config.load(directory)
        weights: dict[str, Tensor] = {}
        for file in weight_files(directory):
            weights |= load_state_dict(file, "the decoder's weights")
        return cls(config, weights, context or config.max_seq_len)

    def empty_cache(self, capacity: int) -> Tensor:
        """Room for `capacity` positions: float32 `[layers, 2 * groups, capacity, head_dim]`.

        In each layer the keys of all groups come first, then their values.
        """
        c = self.config
        return torch.empty(c.num_hidden_layers, 2 * c.num_attention_groups, capacity, c.head_dim)

    @torch.inference_mode()
    def forward(self, ids: Tensor, cache: Tensor, start: int) -> Tensor:
        """Run int64 `ids` `[n]` at positions `start..`; write their keys and values to `cache`.

        `cache` holds the positions before `start`. Returns the hidden states after the final norm,
        float32 `[n, hidden]`.
        """
        n, end = len(ids), start + len(ids)
        if n == 1:
            return self._one_each(ids, [cache], [start])
        c = self.config
        heads, groups = c.num_attention_heads, c.num_attention_groups
        bias = self._bias_of(start, end)[None]
        x = F.embedding(ids, self._embedding)
        for index, layer in enumerate(self._layers):
            qkv = (self._unit(x) @ layer.qkv).view(n, -1, c.head_dim).transpose(0, 1)
            cache[index, :, start:end] = qkv[heads:]
            k, v = cache[index, None, :groups, :end], cache[index, None, groups:, :end]
            mixed = F.scaled_dot_product_attention(
                qkv[None, :heads], k, v, attn_mask=bias, scale=1.0, enable_gqa=True
            )
            x = x.addmm_(mixed[0].transpose(0, 1).reshape(n, -1), layer.out)
            gate, up = (self._unit(x) @ layer.gate_up).chunk(2, dim=1)
            x = x.addmm_(F.silu(gate) * up, layer.down)
        return self._unit(x) * self._norm

    @torch.inference_mode()
    def step(self, ids: Tensor, caches: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
        """Run one id of each of several sequences: int64 `[n]`; row i is at `starts[i]` of its own.

        The result equals `forward` on each alone, bit by bit, in less time: each weight is read
        from memory once and then from the processor's cache.
        """
        return self._one_each(ids, caches, starts)

    def _one_each(self, ids: Tensor, caches: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
        b = self._buffers.of(len(ids), self.config)
        pasts = [self._past(cache, start) for cache, start in zip(caches, starts, strict=True)]
        torch.index_select(self._embedding, 0, ids, out=b.x.all)
        for index, layer in enumerate(self._layers):
            self._unit(b.x.all, out=b.unit.all)
            for row, out in zip(b.unit.rows, b.qkv.rows, strict=True):
                torch.mm(row, layer.qkv, out=out)
            for q, kv, mixed, past in zip(b.q, b.kv, b.mixed_heads, pasts, strict=True):
                past.newest[index].copy_(kv)
                # Two small products a group: twice as quick as the fused kernel.
                scores = torch.bmm(q, past.keys[index]).add_(past.bias)
                torch.bmm(scores.softmax(-1), past.values[index], out=mixed)
            for row, x in zip(b.mixed.rows, b.x.rows, strict=True):
                x.addmm_(row, layer.out)
            self._unit(b.x.all, out=b.unit.all)
            for row, out in zip(b.unit.rows, b.gate_up.rows, strict=True):
                torch.mm(row, layer.gate_up, out=out)
            F.silu(b.gate.all, inplace=True).mul_(b.up)
            for row, x in zip(b.gate.rows, b.x.rows, strict=True):
                x.addmm_(row, layer.down)
        return self._unit(b.x.all) * self._norm

    @torch.inference_mode()
    def logits(self, hidden: Tensor, ids: slice = slice(None)) -> Tensor:
        """Scores of the next id: float32 `[n, hidden]` -> `[n, vocab]`; -inf outside of `ids`.

        The head is a third of nano's weights, and a step takes as long as reading them.
        """
        scores = hidden.new_full((len(hidden), self.config.vocab_size), -torch.inf)
        torch.mm(hidden, self._head[:, ids], out=scores[:, ids])
        return scores

    def _unit(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """RMSNorm without its weight; `F.rms_norm` costs four times as much on a CPU."""
        squares = torch.mul(x, x, out=out).sum(-1, keepdim=True)
        scale = torch.add(self._eps, squares, alpha=1 / self.config.hidden_size).rsqrt_()
        return torch.mul(x, scale, out=out)

    def _past(self, cache: Tensor, start: int) -> _Past:
        groups, end = self.config.num_attention_groups, start + 1
        held = cache[:, :, :end]
        return _Past(
            newest=cache[:, :, start].unbind(0),
            keys=held[:, :groups].transpose(2, 3).unbind(0),
            values=held[:, groups:].unbind(0),
            bias=self._bias_of(start, end).view(groups, -1, end),
        )

    def _bias_of(self, start: int, end: int) -> Tensor:
        """sqrt-ALiBi and the causal mask of queries `start..end-1` on keys `0..end-1`.

        float32 `[heads, end - start, end]`; a view for a single query.
        """
        first = self.context - 1 - start
        if end - start == 1:
            return self._bias[:, None, first : self.context]
        return self._bias.unfold(1, end, 1)[:, self.context - end : first + 1].flip(1)


def _by_input(weight: Tensor) -> Tensor:
    """`[out, in]` as a contiguous `[in, out]`: a product with one row reads it twice as quickly."""
    return weight.t().contiguous()
