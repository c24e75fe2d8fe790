"""Calls held to their schemas while they are drawn, on a real tokenizer's pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutated_calls import HOUSEHOLD, LEGAL, TIMER
from tiny_text import tiny_text

from aqaa.recipe.decoder.prepare import pieces_path
from aqaa.recipe.domain.commands import draw_commands
from aqaa.recipe.domain.tools import TOOLS
from aqaa.server.dialogue.call_reader import CallReader
from aqaa.server.dialogue.call_schema import schema_of_call
from aqaa.server.dialogue.tools import Tool
from aqaa.server.engine.call_mask import CallGrammars, CallMask
from aqaa.server.engine.call_shape import CallShape
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.sampling import Sampler
from aqaa.tokenizers.text import TextTokenizer

TEXT, TOKENS = tiny_text()
GRAMMARS = CallGrammars(TEXT)
START, END = TOKENS.eot, TOKENS.bot  # any two control ids
SHAPE = CallShape(START, END, schema_of_call(HOUSEHOLD))
VOCABULARY = TOKENS.audio_offset + 20


def inside(text: str, tokenizer: TextTokenizer = TEXT) -> list[int]:
    """The ids of `text` amid a text."""
    return tokenizer.encode("\n" + text)[len(tokenizer.encode("\n")) :]


def allowed(mask: CallMask, size: int = VOCABULARY) -> set[int]:
    logits = torch.zeros(size)
    mask.apply(logits)
    return set((~logits.isneginf()).nonzero().flatten().tolist())


def check_unhindered(mask: CallMask, call: list[int], size: int = VOCABULARY) -> None:
    """No id of the whole `call` is forbidden, and when it is whole it must end."""
    for token in call[:-1]:
        assert token in allowed(mask, size), token
        mask.push([token])
    assert allowed(mask, size) == {call[-1]}
    mask.push(call[-1:])
    assert allowed(mask, size) == set(range(size)), "outside of calls anything may come"


@pytest.mark.parametrize("text", LEGAL)
def test_no_id_of_a_legal_call_is_forbidden(text: str) -> None:
    check_unhindered(CallMask(GRAMMARS, SHAPE), [START, *inside(text), END])


def test_a_call_of_the_household_is_drawn_as_nano_learns_to_spell_it() -> None:
    pieces = TextTokenizer.load(pieces_path())
    grammars = CallGrammars(pieces)
    tools = [
        Tool(tool.name, tool.description, tool.declaration()["parameters"])
        for tool in TOOLS.values()
    ]
    shape = CallShape(5, 6, schema_of_call(tools))
    for command in draw_commands(300):
        if command.missing is not None:
            continue
        ids = [5, *inside(command.call.spelt(), pieces), 6]
        check_unhindered(CallMask(grammars, shape), ids, 6400)


def test_only_what_is_declared_can_be_written() -> None:
    mask = CallMask(GRAMMARS, SHAPE, [START, *inside('{"name":"set_')])
    texts = {TEXT.piece(token) for token in allowed(mask)}
    assert texts
    assert all(b"timer".startswith(text) or b"light".startswith(text) for text in texts)
    mask.push(inside("timer"))
    mask.push(inside('","arguments":{"minutes":5'))
    assert END not in allowed(mask)
    mask.push(inside("}}"))
    assert allowed(mask) == {END}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), repetition_aware=st.booleans())
def test_whatever_the_decoder_says_a_call_is_legal(seed: int, repetition_aware: bool) -> None:
    params = SamplingParams(
        temperature=1.0, top_p=1.0, seed=seed, calls=SHAPE, answered=1,
        repetition_aware=repetition_aware,
    )  # fmt: skip
    sampler = Sampler(params, [START], GRAMMARS)
    torch.manual_seed(seed)
    liked = torch.randn(VOCABULARY)
    for closing in ('"', "}"):  # else a text or a number would hardly ever end
        liked[inside(closing)[-1]] += 5
    liked[END] += 5
    ids = [START]
    while END not in ids and len(ids) < 2000:
        ids.append(sampler.pick(liked.clone(), ids))
    reader = CallReader(HOUSEHOLD)
    reader.push(TEXT.decode(ids[1:-1]))
    assert reader.finish(len(ids)).name in ("set_timer", "set_light")


def test_a_call_goes_on_from_what_was_begun_for_the_model() -> None:
    opening = [START, *inside('{"name":"set_timer')]
    named = CallShape(START, END, schema_of_call([TIMER]))
    assert allowed(CallMask(GRAMMARS, named, opening)) == {inside('set_timer"')[-1]}


def test_the_repetition_rule_is_of_speech_and_not_of_calls() -> None:
    zero = inside("0")[-1]
    written = [START, *inside('{"name":"set_timer","arguments":{"minutes":10000')]
    liked = torch.zeros(VOCABULARY)
    liked[zero] = 1.0
    params = SamplingParams(temperature=0.0, repetition_aware=True, calls=SHAPE)
    assert Sampler(params, written, GRAMMARS).pick(liked.clone(), written) == zero
    spoken = SamplingParams(temperature=0.0, repetition_aware=True)
    assert Sampler(spoken, written, GRAMMARS).pick(liked.clone(), written) != zero


@pytest.mark.parametrize("schema", ["[]", "no JSON", '{"type":"nonsense"}', '{"enum":[]}'])
def test_what_cannot_be_followed_is_left_to_the_parser(schema: str) -> None:
    mask = CallMask(GRAMMARS, CallShape(START, END, schema), [START])
    assert allowed(mask) == set(range(VOCABULARY))


def test_a_call_that_left_its_schema_is_left_to_the_parser() -> None:
    assert allowed(CallMask(GRAMMARS, SHAPE, [START, *inside("hello")])) == set(range(VOCABULARY))


def test_a_decoder_without_a_text_tokenizer_has_no_grammars(tmp_path: Path) -> None:
    assert CallGrammars.beside(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(TEXT._processor.serialized_model_proto())
    assert CallGrammars.beside(tmp_path) is not None


def test_128_functions_are_one_schema() -> None:
    parameters = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    tools = [Tool(f"f{number}", "", parameters) for number in range(128)]
    text = json.dumps({"name": "f127", "arguments": {"x": 1}}, separators=(",", ":"))
    mask = CallMask(GRAMMARS, CallShape(START, END, schema_of_call(tools)))
    check_unhindered(mask, [START, *inside(text), END])
