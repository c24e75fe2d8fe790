"""sqrt-ALiBi for vLLM's CPU attention backend.

Step-1 has no rotary embedding; its only sense of position is the bias `-slope_h * sqrt(i - j)` on
the score of query i and key j (SPEC 6). vLLM's compiled CPU kernels know linear ALiBi only, so the
layers that ask for the square root take the path below, in PyTorch: gather the KV blocks, add the
bias, `scaled_dot_product_attention`. All other layers go to vLLM's own kernels untouched.

Queries of one group share a KV head; they are laid out as more rows of the same query, so keys and
values are never repeated. Sequences that decode one token are computed together; longer queries
(prefill, chunked or after a cached prefix) one sequence at a time, in tiles that bound the bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import scaled_dot_product_attention
from vllm.v1.attention.backend import CommonAttentionMetadata, MultipleOf
from vllm.v1.attention.backends.cpu_attn import (
    CPUAttentionBackend,
    CPUAttentionBackendImpl,
    CPUAttentionMetadata,
    CPUAttentionMetadataBuilder,
)

TILE_BIAS = 1 << 22  # bias elements held at once: 16 MB of float32


@dataclass
class DecodeBatch:
    """The sequences of a step that have exactly one query token.

    Attributes:
        rows: [R] int64, where their queries stand in the step's tokens.
        blocks: [R, B] int64, their KV blocks, padded with any valid block.
        root: [R, 1, 1, B * block_size] float32, sqrt of the distance; inf where there is no key.
    """

    rows: torch.Tensor
    blocks: torch.Tensor
    root: torch.Tensor


@dataclass
class ExtendSequence:
    """A sequence with several query tokens: rows [start, end), keys [0, length).

    Attributes:
        blocks: [B] int64, its KV blocks.
    """

    start: int
    end: int
    length: int
    blocks: torch.Tensor


@dataclass
class SqrtAlibiMetadata:
    """What one forward step needs, made once and used by every layer."""

    num_actual_tokens: int
    slot_mapping: torch.Tensor
    decode: DecodeBatch | None
    extend: list[ExtendSequence]


def plan_step(common: CommonAttentionMetadata, block_size: int) -> SqrtAlibiMetadata:
    """Split a step's sequences into the decode batch and the extended ones."""
    starts = common.query_start_loc[: common.num_reqs + 1].tolist()
    lengths = common.seq_lens[: common.num_reqs].tolist()
    table = common.block_table_tensor.long()
    single = [i for i in range(common.num_reqs) if starts[i + 1] - starts[i] == 1]
    extend = [
        ExtendSequence(
            start=starts[i],
            end=starts[i + 1],
            length=lengths[i],
            blocks=table[i, : -(-lengths[i] // block_size)],
        )
        for i in range(common.num_reqs)
        if starts[i + 1] - starts[i] > 1
    ]
    decode = None
    if single:
        index = torch.tensor(single)
        length = torch.tensor([lengths[i] for i in single])
        width = -(-int(length.max()) // block_size)
        distance = length[:, None] - 1 - torch.arange(width * block_size)
        root = distance.clamp(min=0).float().sqrt_().masked_fill_(distance < 0, torch.inf)
        used = torch.arange(width) * block_size < length[:, None]
        decode = DecodeBatch(
            rows=torch.tensor([starts[i] for i in single]),
            blocks=table[index, :width].where(used, 0),
            root=root[:, None, None, :],
        )
    return SqrtAlibiMetadata(common.num_actual_tokens, common.slot_mapping, decode, extend)


def gather(kv_cache: torch.Tensor, blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values, each [R, G, B * block_size, d], of `blocks` [R, B].

    `kv_cache` is [blocks, G, block_size, 2 * d], a key and its value side by side.
    """
    groups = torch.arange(kv_cache.shape[1])
    taken = kv_cache[blocks[:, None, :], groups[None, :, None]]
    key, value = taken.flatten(2, 3).chunk(2, dim=-1)
    return key, value


def attend_decode(
    query: torch.Tensor, kv_cache: torch.Tensor, batch: DecodeBatch, slopes: torch.Tensor
) -> torch.Tensor:
    """Attention of one query token a sequence.

    `query` is [R, H, d], `slopes` [G, H / G]; the result is [R, H, d].
    """
    rows, heads, size = query.shape
    key, value = gather(kv_cache, batch.blocks)
    bias = (-slopes[None, :, :, None] * batch.root).to(query.dtype)
    grouped = query.view(rows, *slopes.shape, size)
    return scaled_dot_product_attention(grouped, key, value, attn_mask=bias).reshape(
        rows, heads, size
    )


def attend_extend(
    query: torch.Tensor, kv_cache: torch.Tensor, sequence: ExtendSequence, slopes: torch.Tensor
) -> torch.Tensor:
    """Causal attention of the last `query.shape[0]` tokens of one sequence.

    `query` is [T, H, d], `slopes` [G, H / G]; the result is [T, H, d].
    """
    tokens, heads, size = query.shape
    groups, share = slopes.shape
    key, value = (part[:, :, : sequence.length] for part in gather(kv_cache, sequence.blocks[None]))
    first = sequence.length - tokens
    tile = max(1, TILE_BIAS // (heads * sequence.length))
    output = torch.empty_like(query)
    for start in range(0, tokens, tile):
        end = min(start + tile, tokens)
        seen = first + end  # no query of this tile sees a later key
        distance = torch.arange(first + start, seen)[:, None] - torch.arange(seen)
        root = distance.clamp(min=0).float().sqrt_().masked_fill_(distance < 0, torch.inf)
        bias = (-slopes[:, :, None, None] * root).to(query.dtype).view(1, groups, -1, seen)
        rows = query[start:end].view(end - start, groups, share, size).permute(1, 2, 0, 3)
        attended = scaled_dot_product_attention(
            rows.reshape(1, groups, -1, size), key[:, :, :seen], value[:, :, :seen], attn_mask=bias
        )
        output[start:end] = (
            attended.view(groups, share, end - start, size).permute(2, 0, 1, 3).flatten(1, 2)
        )
    return output


class SqrtAlibiCPUImpl(CPUAttentionBackendImpl):  # type: ignore[misc]
    """vLLM's CPU attention, with the square root of the distance where a layer asks for it."""

    def __init__(self, *args: Any, use_alibi_sqrt: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.use_alibi_sqrt = use_alibi_sqrt
        if use_alibi_sqrt:
            if self.is_fp8_kv_cache:
                raise ValueError(
                    "sqrt-ALiBi on the CPU has no quantised KV cache: use --kv-cache-dtype auto"
                )
            self.slopes = self.alibi_slopes.view(self.num_kv_heads, -1)

    def do_kv_cache_update(
        self,
        layer: torch.nn.Module,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        slot_mapping: torch.Tensor,
    ) -> None:
        """Write new keys and values, each [T, G, d], to their slots; slot -1 is padding."""
        if not self.use_alibi_sqrt:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        real = slot_mapping >= 0
        slot = slot_mapping[real].long()
        pair = torch.cat([key, value], dim=-1)[: real.shape[0]][real]
        block_size = kv_cache.shape[2]
        kv_cache[slot // block_size, :, slot % block_size] = pair

    def forward(
        self,
        layer: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CPUAttentionMetadata | SqrtAlibiMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Fill `output` [T, H, d] for `query` [T, H, d]; keys and values are in the cache."""
        if not isinstance(attn_metadata, SqrtAlibiMetadata):
            # vLLM's kernels, or a profiling run without metadata
            super().forward(
                layer,
                query,
                key,
                value,
                kv_cache,
                attn_metadata,
                output,
                output_scale,
                output_block_scale,
            )
            return output
        if attn_metadata.decode is not None:
            rows = attn_metadata.decode.rows
            output[rows] = attend_decode(query[rows], kv_cache, attn_metadata.decode, self.slopes)
        for sequence in attn_metadata.extend:
            span = slice(sequence.start, sequence.end)
            output[span] = attend_extend(query[span], kv_cache, sequence, self.slopes)
        return output


class SqrtAlibiMetadataBuilder(CPUAttentionMetadataBuilder):  # type: ignore[misc]
    """Plans a step for layers with sqrt-ALiBi, else leaves it to vLLM's builder."""

    def build(
        self,
        common_prefix_len: int,
        common_attn_metadata: CommonAttentionMetadata,
        fast_build: bool = False,
    ) -> CPUAttentionMetadata | SqrtAlibiMetadata:
        """Metadata of one step; a KV cache group's layers are all of one kind."""
        context = self.vllm_config.compilation_config.static_forward_context
        if getattr(context[self.layer_names[0]].impl, "use_alibi_sqrt", False):
            return plan_step(common_attn_metadata, self.block_size)
        return super().build(common_prefix_len, common_attn_metadata, fast_build)


class SqrtAlibiCPUBackend(CPUAttentionBackend):  # type: ignore[misc]
    """Registered in place of vLLM's CPU backend by `plugin`."""

    # A block is the grain of prefix reuse: 16 ids are 0.38 s of speech.
    BLOCK: ClassVar[int] = 16

    @staticmethod
    def get_supported_kernel_block_sizes(kv_cache_spec: object = None) -> list[int | MultipleOf]:
        """vLLM's own kernels take multiples of 16 as well, only slower."""
        return [MultipleOf(SqrtAlibiCPUBackend.BLOCK)]

    @classmethod
    def get_supported_head_sizes(cls) -> list[int]:
        """Any, as far as this class can tell; vLLM's kernels refuse what they cannot do."""
        return []

    @classmethod
    def supports_alibi_sqrt(cls) -> bool:
        """The reason for this class."""
        return True

    @staticmethod
    def get_impl_cls() -> type[CPUAttentionBackendImpl]:
        """The attention itself."""
        return SqrtAlibiCPUImpl

    @staticmethod
    def get_builder_cls() -> type[CPUAttentionMetadataBuilder]:
        """The step's metadata."""
        return SqrtAlibiMetadataBuilder
