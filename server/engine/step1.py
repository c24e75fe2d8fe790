"""Step-1, the decoder of Step-Audio, in plain PyTorch for CPUs: one sequence, float32.

Pre-norm blocks of grouped-query attention and SwiGLU, no biases, no rotary embedding. Position
enters only through sqrt-ALiBi: `score(i, j) -= slope_head * sqrt(i - j)` (SPEC 6).

The weights are fused (q|k|v and gate|up) when they are loaded, and the bias is one table by
distance, made once: for a single query it is a view, so that a decoding step allocates nothing
but its small activations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from aqaa.models.errors import BundleError
from aqaa.models.weights import load_state_dict, require_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Step1Config:
    """What `config.json` of a Step-1 checkpoint says about its shape."""

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_attention_groups: int
    num_hidden_layers: int
    vocab_size: int
    max_seq_len: int
    rms_norm_eps: float

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def kv_size(self) -> int:
        """Width of the keys, or the values, of one position in one layer."""
        return self.num_attention_groups * self.head_dim

    @property
    def parameters(self) -> int:
        """Weights of the whole decoder, embedding and lm_head included."""
        h, f = self.hidden_size, self.intermediate_size
        layer = 2 * h * h + 2 * h * self.kv_size + 3 * h * f + 2 * h
        return 2 * self.vocab_size * h + h + self.num_hidden_layers * layer

    @property
    def kv_per_token(self) -> int:
        """Cached numbers (keys and values) of one position over all layers."""
        return 2 * self.num_hidden_layers * self.kv_size

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `directory/config.json`.

        Raises:
            BundleError: it is missing or unreadable, lacks a key, or its numbers contradict.
        """
        file = require_file(directory / "config.json", "the decoder's config.json")
        try:
            data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise BundleError(f"{file} is not valid JSON: {error}") from error
        values: dict[str, Any] = {}
        for key, kind in cls.__annotations__.items():
            value = data.get(key)
            if value is None:
                raise BundleError(f"{file} lacks the key {key!r}: is this a Step-1 checkpoint?")
            allowed = (int, float) if kind == "float" else int
            if isinstance(value, bool) or not isinstance(value, allowed) or value <= 0:
                raise BundleError(f"{file}: {key} is {value!r}, but must be a positive {kind}")
            values[key] = value
        config = cls(**values)
        if config.hidden_size % config.num_attention_heads:
            raise BundleError(f"{file}: hidden_size is not a multiple of num_attention_heads")
        if config.num_attention_heads % config.num_attention_groups:
            raise BundleError(
                f"{file}: num_attention_heads is not a multiple of num_attention_groups"
            )
        return config


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: the largest power of two of heads first, the others appended."""
    n = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * (h + 1) / n) for h in range(n)]
    return slopes + [2 ** (-4 * (2 * m + 1) / n) for m in range(heads - n)]


@dataclass(frozen=True, slots=True)
class _Layer:
    """Fused float32 weights of one block, `[out, in]`.

    The weight of the norm before them is folded into `qkv` and `gate_up`.
    """

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


class Step1:
    """The weights and the arithmetic; holds no state of any sequence, so threads may share it."""

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
            q = take(attention + "q_proj.weight", h, h)
            k = take(attention + "k_proj.weight", c.kv_size, h)
            v = take(attention + "v_proj.weight", c.kv_size, h)
            gate, up = take(mlp + "gate_proj.weight", f, h), take(mlp + "up_proj.weight", f, h)
            self._layers.append(
                _Layer(
                    qkv=torch.cat((q, k, v)) * take(at + "input_layernorm.weight", h),
                    out=take(attention + "o_proj.weight", h, h),
                    gate_up=torch.cat((gate, up)) * take(at + "post_attention_layernorm.weight", h),
                    down=take(mlp + "down_proj.weight", h, f),
                )
            )
        self._norm = take("model.norm.weight", h)
        self._eps = torch.tensor(c.rms_norm_eps)
        self._head = take("lm_head.weight", c.vocab_size, h)
        # Column t is the bias at distance context-1-t, so that the keys 0..i of query i read a
        # contiguous run that ends at distance 0.
        distance = torch.arange(context - 1, -1, -1, dtype=torch.float32)
        slopes = torch.tensor(alibi_slopes(c.num_attention_heads), dtype=torch.float32)
        self._bias = -slopes[:, None] * distance.sqrt()

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
        heads = self.config.num_attention_heads
        bias = self._bias_of(start, end)

        def attend(qkv: Tensor, layer: int) -> Tensor:
            qkv = qkv.transpose(0, 1)
            cache[layer, :, start:end] = qkv[heads:]
            mixed = self._attend(qkv[:heads], cache[layer, :, :end], bias)
            return mixed.transpose(0, 1).reshape(n, -1)

        return self._run(ids, attend, F.linear)

    @torch.inference_mode()
    def step(self, ids: Tensor, caches: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
        """Run one id of each of several sequences: int64 `[n]`; row i is at `starts[i]` of its own.

        The result is `forward`'s on each alone, bit by bit, in less than half the time: each weight
        comes from memory once and meets the other rows in the processor's cache.
        """
        heads = self.config.num_attention_heads
        biases = [self._bias_of(start, start + 1) for start in starts]

        def attend(qkv: Tensor, layer: int) -> Tensor:
            rows = []
            for row, cache, start, bias in zip(qkv, caches, starts, biases, strict=True):
                cache[layer, :, start] = row[heads:]
                q = row[:heads, None]
                rows.append(self._attend(q, cache[layer, :, : start + 1], bias).flatten())
            return torch.stack(rows)

        return self._run(ids, attend, _by_row)

    def _run(
        self,
        ids: Tensor,
        attend: Callable[[Tensor, int], Tensor],
        linear: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """All layers; `attend` takes q, k and v as `[n, heads + 2 * groups, d]`, and the layer."""
        n, width = len(ids), self.config.head_dim
        x = F.embedding(ids, self._embedding)
        for index, layer in enumerate(self._layers):
            qkv = linear(self._unit(x), layer.qkv).view(n, -1, width)
            x = x + linear(attend(qkv, index), layer.out)
            gate, up = linear(self._unit(x), layer.gate_up).chunk(2, dim=1)
            x = x + linear(F.silu(gate) * up, layer.down)
        return self._unit(x) * self._norm

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next id: float32 `[n, hidden]` -> `[n, vocab]`."""
        return F.linear(hidden, self._head)

    def _unit(self, x: Tensor) -> Tensor:
        """RMSNorm without its weight; `F.rms_norm` costs four times as much on a CPU."""
        squares = (x * x).sum(-1, keepdim=True)
        return x * torch.add(self._eps, squares, alpha=1 / self.config.hidden_size).rsqrt_()

    def _attend(self, q: Tensor, kv: Tensor, bias: Tensor) -> Tensor:
        """`[heads, n, d]` queries on `[2 * groups, end, d]` keys and values: `[heads, n, d]`."""
        heads, n, width = q.shape
        groups, end = len(kv) // 2, kv.shape[1]
        k, v = kv[:groups], kv[groups:]
        if n > 1:
            return F.scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=bias[None], enable_gqa=True
            )[0]
        # A single query: two small products a group, twice as quick as the fused kernel.
        q = q.reshape(groups, heads // groups, width)
        bias = bias.view(groups, heads // groups, end)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=width**-0.5)
        return torch.bmm(scores.softmax(-1), v).view(heads, 1, width)

    def _bias_of(self, start: int, end: int) -> Tensor:
        """sqrt-ALiBi and the causal mask of queries `start..end-1` on keys `0..end-1`.

        float32 `[heads, end - start, end]`; a view for a single query.
        """
        first = self.context - 1 - start
        if end - start == 1:
            return self._bias[:, None, first:]
        rows = torch.full((len(self._bias), end - start, end), -math.inf)
        for row in range(end - start):
            rows[:, row, : start + row + 1] = self._bias[:, first - row :]
        return rows


def _by_row(x: Tensor, weight: Tensor) -> Tensor:
    """`F.linear` of each row alone: a product of several rows would round otherwise."""
    return torch.cat([F.linear(row, weight) for row in x.unsqueeze(1)])


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint: one, or the shards that its index names.

    Raises:
        BundleError: one is missing, or the index is none.
    """
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file() or not index.is_file():
        return [require_file(single, "the decoder's weights")]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise BundleError(f"{index} is not an index of safetensors shards: {error}") from error
    return [require_file(directory / name, "a shard of the decoder") for name in sorted(names)]
