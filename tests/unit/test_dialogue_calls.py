"""Calls of functions in an answer: whole and as declared, or none at all; and never spoken."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutated_calls import HOUSEHOLD, LEGAL, LIGHT, TIMER, is_legal, mutated
from scripted import (
    CALL_START,
    END,
    EOT,
    START,
    Letters,
    bundle,
    call,
    group,
    scripted_parts,
    woven,
)
from tiny_text import tiny_text

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.errors import CallError
from aqaa.server.dialogue.answer_parser import (
    AnswerParser,
    AudioGroup,
    End,
    Malformed,
    ParsedEvent,
    TextDelta,
)
from aqaa.server.dialogue.call_reader import MOST_CHARACTERS, CallReader, ToolCall
from aqaa.server.dialogue.call_schema import unwritable
from aqaa.server.dialogue.tools import Calling, Tool
from aqaa.tokenizers.text import TextTokenizer

BUNDLE = bundle()
ANY = Calling(HOUSEHOLD)


def parser(calling: Calling | None = ANY) -> AnswerParser:
    return AnswerParser(BUNDLE.tokens, Letters(), BUNDLE.tools, calling)


def parse(ids: list[int], calling: Calling | None = ANY) -> list[ParsedEvent]:
    one = parser(calling)
    return [*one.push(ids), *one.finish()]


def test_a_call_is_an_event_once_it_is_whole() -> None:
    one, ids = parser(), call(LEGAL[1])
    assert one.push(ids[:-1]) == []
    arguments = '{"minutes":5,"label":"the eggs"}'
    assert one.push(ids[-1:]) == [ToolCall("set_timer", arguments, len(ids))]
    assert one.push([EOT]) == [End()]


def test_what_is_said_before_a_call_is_said() -> None:
    events = parse([*woven("Yes.", 1)[:-1], *call(LEGAL[0]), EOT])
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert said == "Yes."
    assert [type(event) for event in events[-2:]] == [ToolCall, End]


def test_several_functions_may_be_called() -> None:
    events = parse([*call(LEGAL[0]), *call(LEGAL[2]), EOT])
    assert [event.name for event in events if isinstance(event, ToolCall)] == [
        "set_timer", "set_light",
    ]  # fmt: skip


def test_what_is_said_after_a_call_is_dropped() -> None:
    events = parse([*call(LEGAL[0]), START, ord("x"), *group(1), END, EOT])
    assert not [event for event in events if isinstance(event, TextDelta | AudioGroup)]
    assert sum(isinstance(event, Malformed) for event in events) == 8
    assert events[-1] == End()


def test_a_call_without_its_mark_is_neither_made_nor_said() -> None:
    forgotten = [*call(LEGAL[0])[1:], EOT]
    with pytest.raises(CallError, match="without the mark"):
        parse(forgotten)
    with pytest.raises(CallError, match="without the mark"):
        parse([*woven("One moment.", 3)[:-1], *forgotten])
    with pytest.raises(CallError, match="without the mark"):
        parse([START, *forgotten])


def test_where_nothing_can_be_called_any_text_is_text() -> None:
    written = parse([*map(ord, LEGAL[0]), EOT], None)
    assert "".join(one.text for one in written if isinstance(one, TextDelta)) == LEGAL[0]


def test_what_is_spoken_may_have_quotes_in_it() -> None:
    spoken = parse(woven('He said "no".', 3))
    assert "".join(one.text for one in spoken if isinstance(one, TextDelta)) == 'He said "no".'


def test_a_call_that_a_limit_cut_is_none() -> None:
    assert parse(call(LEGAL[0])[:-1]) == []


@pytest.mark.parametrize(
    ("calling", "why"),
    [
        (None, "nothing may be called"),
        (Calling(HOUSEHOLD, "none"), "nothing may be called"),
        (Calling(HOUSEHOLD, LIGHT), "may not be called here"),
    ],
)
def test_only_what_may_be_called_is(calling: Calling | None, why: str) -> None:
    with pytest.raises(CallError, match=why):
        parse(call(LEGAL[0]), calling)


def test_an_answer_that_may_call_once_is_over_with_its_call() -> None:
    one = parser(Calling(HOUSEHOLD, parallel=False))
    assert [type(event) for event in one.push(call(LEGAL[0]))] == [ToolCall, End]
    assert one.over


@pytest.mark.parametrize(
    ("text", "upto", "why"),
    [
        ("minutes", 1, "not JSON"),
        ("[1,2]", 1, "no JSON object"),
        ('{"tool":1}', 9, "'tool'"),
        ('{"name":"open_door","arguments":{}}', 19, "'open_door'"),
        ('{"name":"set_timer","arguments":"5"}', 35, "no JSON object"),
        ('{"name":"set_timer","arguments":{"hours":5}}', 42, "hours: Extra"),
        ('{"name":"set_timer","arguments":{"minutes":"5","label":"x"}}', 58, "minutes: Input"),
        ('{"name":"set_light","arguments":{"room":"cave","on":true}}', 56, "room: Input"),
    ],
)
def test_a_call_is_given_up_as_soon_as_it_can_be_no_legal_one(
    text: str, upto: int, why: str
) -> None:
    reader = CallReader(HOUSEHOLD)
    for character in text[: upto - 1]:
        reader.push(character)
    with pytest.raises(CallError, match=why):
        reader.push(text[upto - 1])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("{}", "without arguments and name"),
        ('{"name":"set_timer"}', "without arguments"),
        ('{"name":"set_timer","arguments":{}}', "minutes: Field required"),
        ('{"name":"set_timer","arguments":{"minutes":5}}}', "not JSON"),
        ('{"name":"set_timer","arguments":{"minutes":true}}', "minutes: Input"),
        ('{"name":"set_timer","arguments":{"minutes":5.5}}', "minutes: Input"),
        ('{"name":"set_timer","arguments":{"minutes":NaN}}', "not JSON"),
        ('{"name":"set_light","arguments":{"room":"hall"}}', "on: Field required"),
    ],
)
def test_a_call_that_is_not_as_declared_is_refused_at_its_end(text: str, why: str) -> None:
    with pytest.raises(CallError, match=why):
        parse(call(text))


def test_a_call_has_a_bound() -> None:
    with pytest.raises(CallError, match=str(MOST_CHARACTERS)):
        parse([CALL_START, *b'{"name":"', *b"x" * MOST_CHARACTERS])


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["integer", "string"]}, [5, "up"], [True, 1.5, None]),
        ({"type": "number"}, [5, 1.5], ["5", False]),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, [None, True], [1, "x"]),
        ({"const": 3}, [3], [4, "3"]),
        ({"type": "array", "items": {"type": "string"}}, [[], ["x"]], ["x", [1]]),
        (
            {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
            [{"x": 1}, {"x": 1, "y": 2}],
            [{}, {"x": "1"}, 5],
        ),
        ({"type": "string", "minLength": 9}, ["short"], [1]),  # the function's own to check
        ({"$ref": "#/elsewhere"}, [1, "x", None], []),
        ("no schema", [1, "x"], []),
        ({"enum": []}, [1], []),
        ({"enum": [{"x": 1}]}, [{"x": 2}], []),
    ],
    ids=str,
)
def test_arguments_are_held_to_their_schema(schema: object, good: list, bad: list) -> None:
    tool = Tool("f", "", {"type": "object", "properties": {"v": schema}})
    for value in good:
        text = json.dumps({"name": "f", "arguments": {"v": value}}, separators=(",", ":"))
        made = parse(call(text), Calling((tool,)))[0]
        assert made == ToolCall("f", json.dumps({"v": value}, separators=(",", ":")), len(text) + 2)
    for value in bad:
        with pytest.raises(CallError):
            parse(call(json.dumps({"name": "f", "arguments": {"v": value}})), Calling((tool,)))


@pytest.mark.parametrize("parameters", [None, {}, {"properties": 5, "required": "x"}])
def test_a_function_without_a_schema_takes_any_object(parameters: dict | None) -> None:
    tool = Tool("f", "", parameters)
    assert len(parse(call('{"name":"f","arguments":{"x":[1]}}'), Calling((tool,)))) == 1


def test_a_schema_may_be_deeper_than_anybody_looks() -> None:
    schema: dict = {"type": "integer"}
    for _ in range(200):
        schema = {"type": "object", "properties": {"x": schema}}
    text = '{"name":"f","arguments":' + '{"x":' * 20 + '"?"' + "}" * 21
    assert len(parse(call(text), Calling((Tool("f", "", schema),)))) == 1


@given(st.sampled_from(LEGAL), st.data())
def test_no_beginning_of_a_legal_call_is_refused(text: str, data: st.DataObject) -> None:
    reader = CallReader(HOUSEHOLD)
    while text:
        size = data.draw(st.integers(1, len(text)))
        reader.push(text[:size])
        text = text[size:]
    assert reader.finish(1).name in ("set_timer", "set_light")


def check_mutated_calls(count: int) -> None:
    rng = random.Random(20261126)
    whole = refused = 0
    for _ in range(count):
        ids = mutated(rng)
        one = parser()
        events: list[ParsedEvent] = []
        try:
            for token in ids:
                if End() in events:
                    break
                events += one.push([token])
            events += one.finish()
        except CallError:
            refused += 1
        made = [event for event in events if isinstance(event, ToolCall)]
        for event in made:
            assert is_legal(f'{{"name":"{event.name}","arguments":{event.arguments}}}')
        whole += len(made)
        said = [event for event in events if isinstance(event, TextDelta | AudioGroup)]
        assert not [one for one in said if isinstance(one, TextDelta) and set('{"') & set(one.text)]
        if CALL_START in ids:  # nothing is said but what stands before the call
            before = parse(ids[: ids.index(CALL_START)], None)
            may_be_said = [one for one in before if isinstance(one, TextDelta | AudioGroup)]
            assert said == may_be_said[: len(said)]
    assert whole > count / 10, "legal calls are made"
    assert refused > count / 3, "illegal ones are refused"


def test_a_thousand_mutated_calls_are_never_said_nor_made_by_half() -> None:
    check_mutated_calls(1000)


@pytest.mark.deep
def test_ten_thousand_mutated_calls_are_never_said_nor_made_by_half() -> None:
    check_mutated_calls(10_000)


def test_a_named_function_is_begun_for_the_model() -> None:
    parts = scripted_parts()
    prompt, params = parts.asked([1, 4], None, Calling(HOUSEHOLD, TIMER))
    assert prompt[2:] == (CALL_START, *map(ord, '{"name":"set_timer'))
    assert params.answered == len(prompt) - 2
    assert parts.asked([1], None, Calling(HOUSEHOLD, "required"))[0] == (1, CALL_START)
    assert parts.asked([1], None, Calling(HOUSEHOLD, "none"))[0] == (1, START)
    assert parts.asked([1], None, ANY)[0] == (1,)
    assert parts.asked([1], None, None)[0] == (1,)
    parts.services.executor.close()


def needing_a(schema: object) -> dict[str, object]:
    return {"properties": {"a": schema}, "required": ["a"]}


@pytest.mark.parametrize(
    ("parameters", "missing"),
    [
        (None, None),
        ({"properties": {"\u0142": {}}}, None),
        (needing_a({"enum": ["\u0142", "l"]}), None),
        (needing_a({"type": "string"}), None),
        ({"required": ["\u0142"]}, '"\u0142"'),
        (needing_a({"const": "\u0142"}), '"\u0142"'),
        (needing_a({"type": "object", "required": ["\u0142"]}), '"\u0142"'),
        (needing_a({"anyOf": [{"const": "\u0142"}, {"type": "null"}]}), None),
    ],
)
def test_what_stands_in_every_call_of_a_function_must_be_writable(
    parameters: dict[str, object] | None, missing: str | None
) -> None:
    nano = TextTokenizer.of(load_bundle(nano_path()))
    assert unwritable(Tool("set_timer", "", parameters), nano.knows) == missing


def test_a_tokenizer_that_falls_back_to_bytes_writes_everything() -> None:
    tea = {"required": ["\u8336"]}
    assert unwritable(Tool("tea", "", tea), tiny_text()[0].knows) is None
