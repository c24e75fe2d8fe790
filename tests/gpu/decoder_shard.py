"""One decoding step of one GPU's share of the decoder, at random weights: `aqaa plan` assumes it.

What tensor parallelism gives to one of its GPUs (Megatron's split, arXiv 1909.08053): its heads,
its part of the feed-forward and of lm_head. The sums over all GPUs, two a layer, are left out:
there is one card here, so the step of a whole machine takes longer by those.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from aqaa.models.step1 import Step1Config, alibi_slopes

Precision = Literal["bf16", "fp8"]
FP8_MAX = 448.0  # the greatest number of float8_e4m3fn
INPUT_SCALE = 8.0  # float8 of inputs of unit variance: far from its greatest and its least
STEPS = 20  # that are timed, after three


@dataclass(frozen=True)
class StepTime:
    """What a step took, and the least that reading its weights, keys and values could take."""

    seconds: float
    read_bytes: int

    def share_of(self, bandwidth: float) -> float:
        """Of the roofline at `bandwidth` bytes a second."""
        return self.read_bytes / bandwidth / self.seconds


class _Matrix:
    """A weight [outputs, inputs] in bfloat16 or, with one scale, in float8.

    What it is multiplied with is then in float8 too, with a scale that is known beforehand.
    """

    def __init__(self, outputs: int, inputs: int, precision: Precision, device: str) -> None:
        weight = torch.empty(outputs, inputs, dtype=torch.bfloat16, device=device)
        weight.normal_(0, inputs**-0.5)
        self.scale: Tensor | None = None
        if precision == "fp8":
            self.scale = (weight.abs().max().float() / FP8_MAX).reshape(())
            weight = (weight.float() / self.scale).to(torch.float8_e4m3fn)
            self.input_scale = torch.tensor(1 / INPUT_SCALE, device=device)
        self.weight = weight

    @property
    def bytes(self) -> int:
        return self.weight.numel() * self.weight.element_size()

    def __call__(self, x: Tensor) -> Tensor:
        if self.scale is None:
            return functional.linear(x, self.weight)
        small = (x * INPUT_SCALE).to(torch.float8_e4m3fn)
        return torch._scaled_mm(
            small,
            self.weight.t(),
            scale_a=self.input_scale,
            scale_b=self.scale,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )


class DecoderShard:
    """The layers of one of `gpus` GPUs."""

    def __init__(self, config: Step1Config, gpus: int, precision: Precision, device: str) -> None:
        self.config, self.device = config, device
        self.heads = config.num_attention_heads // gpus
        self.groups = max(1, config.num_attention_groups // gpus)
        wide, inner = config.hidden_size, config.intermediate_size // gpus
        queries, keys = self.heads * config.head_dim, self.groups * config.head_dim

        def matrix(outputs: int, inputs: int) -> _Matrix:
            return _Matrix(outputs, inputs, precision, device)

        self.layers = [
            (
                matrix(queries + 2 * keys, wide),
                matrix(wide, queries),
                matrix(2 * inner, wide),
                matrix(wide, inner),
            )
            for _ in range(config.num_hidden_layers)
        ]
        self.lm_head = _Matrix(config.vocab_size // gpus, wide, "bf16", device)
        self.norm = torch.ones(wide, dtype=torch.bfloat16, device=device)
        slopes = torch.tensor(alibi_slopes(config.num_attention_heads)[: self.heads])
        self.slopes = slopes.to(device, torch.bfloat16)

    @property
    def weight_bytes(self) -> int:
        """Of all that a step reads."""
        matrices = [matrix for layer in self.layers for matrix in layer]
        return sum(matrix.bytes for matrix in [*matrices, self.lm_head])

    @torch.inference_mode()
    def time_step(self, conversations: int, context: int) -> StepTime:
        """A step of so many conversations that each hold `context` ids, as one CUDA graph."""
        config = self.config
        shape = (conversations, self.groups, context, config.head_dim)
        caches = [
            torch.randn(2, *shape, dtype=torch.bfloat16, device=self.device) for _ in self.layers
        ]
        distance = torch.arange(context - 1, -1, -1, device=self.device).sqrt()
        bias = -self.slopes[:, None, None] * distance.to(torch.bfloat16)
        x = torch.randn(conversations, config.hidden_size, dtype=torch.bfloat16, device=self.device)

        def step() -> Tensor:
            return self._step(x, caches, bias)

        read = self.weight_bytes + sum(cache.numel() * cache.element_size() for cache in caches)
        return StepTime(_seconds(step, self.device), read)

    def _step(self, x: Tensor, caches: list[Tensor], bias: Tensor) -> Tensor:
        config = self.config
        queries = self.heads * config.head_dim
        for (attend, out, widen, narrow), (keys, values) in zip(self.layers, caches, strict=True):
            normed = functional.rms_norm(x, (config.hidden_size,), self.norm)
            query = attend(normed)[:, :queries].reshape(len(x), self.heads, 1, config.head_dim)
            seen = functional.scaled_dot_product_attention(
                query, keys, values, attn_mask=bias[None], enable_gqa=True
            )
            x = x + out(seen.reshape(len(x), queries))
            normed = functional.rms_norm(x, (config.hidden_size,), self.norm)
            gate, up = widen(normed).chunk(2, dim=-1)
            x = x + narrow(functional.silu(gate) * up)
        return self.lm_head(functional.rms_norm(x, (config.hidden_size,), self.norm))


def _seconds(step: Callable[[], Tensor], device: str) -> float:
    """Of one call; on CUDA recorded as a graph, so that launching costs nothing."""
    if not device.startswith("cuda"):
        step()
        began = time.perf_counter()
        step()
        return time.perf_counter() - began
    aside = torch.cuda.Stream()
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(STEPS):
        graph.replay()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / STEPS
