"""What a session may hold, what it is told when that is too much, and which keys mean nothing."""

from __future__ import annotations

import base64

import pytest
from driven_machine import Driven, error_codes, types
from pydantic import ValidationError

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.types import Json, ResponseOptions

# 800 characters, 50 tokens of instructions, 2 s of sound
SMALL = Limits.of_context(budget=100, audio_seconds=2.0, count_tokens=lambda text: len(text) // 4)


def text_item(text: str, **more: object) -> Json:
    content = [{"type": "input_text", "text": text}]
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": content, **more},
    }


def sound_item(seconds: float) -> Json:
    audio = base64.b64encode(bytes(round(seconds * 24_000) * 2)).decode()
    item = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_audio", "audio": audio}],
    }
    return {"type": "conversation.item.create", "item": item}


def session(**patch: object) -> Json:
    return {"type": "session.update", "session": patch}


def refusal(outputs: list[Output]) -> server.ErrorEvent:
    (error,) = outputs
    assert isinstance(error, server.ErrorEvent)
    return error


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (text_item("x" * 801), "800"),
        (session(instructions="x" * 801), "800"),
        (session(instructions="x" * 700), "50 tokens"),
        ({"type": "response.create", "response": {"instructions": "x" * 700}}, "50 tokens"),
        (sound_item(2.5), "2 s"),
        (session(tools=[{"name": "x", "description": "x" * 70_000}]), "65536"),
        (session(tools=[{}] * 129), "128"),
        ({"type": "response.create", "response": {"metadata": {"k": "x" * 513}}}, "512"),
        (text_item("hi", id="x" * 513), "512"),
        ({"type": "conversation.item.delete", "item_id": "x" * 513}, "512"),
    ],
)
def test_what_is_too_much_is_refused_with_the_number_that_fits(message: Json, says: str) -> None:
    driven = Driven(limits=SMALL)
    assert says in refusal(driven.send(message)).error.message
    assert error_codes(driven.send(text_item("hi"))) == []


def inline(*messages: Json) -> Json:
    given = [message["item"] for message in messages]
    return {"type": "response.create", "response": {"conversation": "none", "input": given}}


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([text_item("x" * 700)] * 3, "1600 characters in all; this has 2148"),
        ([sound_item(1.5)] * 2, "2 s of sound; this has 3 s"),
    ],
    ids=["text", "sound"],
)
def test_the_items_of_one_answer_hold_no_more_than_a_conversation(
    items: list[Json], says: str
) -> None:
    """Each alone was bounded; 512 of them were rendered in one piece while others waited."""
    driven = Driven(limits=SMALL)
    error = refusal(driven.send(inline(*items))).error
    assert says in error.message
    assert error.param == "response.input"
    assert types(driven.send(inline(*items[:1])))[0] != "error"


MANY = 1000


@pytest.mark.parametrize(
    "session",
    [
        {"output_modalities": ["image"] * MANY},
        {"include": ["x"] * MANY},
        {"aqaa": {"extensions": ["x"] * MANY}},
        {"tools": [1] * MANY},
    ],
    ids=lambda session: next(iter(session)),
)
def test_of_many_wrong_values_few_are_told(session: Json) -> None:
    """Each costs ten microseconds of the event loop: 50,000 held it for half a second."""
    with pytest.raises(ValidationError) as wrong:
        Session.model_validate({"id": "s", "model": "m", **session})
    assert wrong.value.error_count() == 1


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": {str(n): n for n in range(MANY)}},
        {"output_modalities": ["image"] * MANY},
        {"input": [1] * MANY},
    ],
    ids=lambda options: next(iter(options)),
)
def test_nor_are_many_of_an_answers(options: Json) -> None:
    with pytest.raises(ValidationError) as wrong:
        ResponseOptions.model_validate(options)
    assert wrong.value.error_count() <= 512
    assert wrong.value.error_count() == 1 or "input" in options


def test_what_is_buffered_stays_when_the_format_changes() -> None:
    driven = Driven()
    sound = base64.b64encode(bytes(9600)).decode()  # 200 ms
    driven.send({"type": "input_audio_buffer.append", "audio": sound})
    driven.send(session(audio={"input": {"format": {"type": "audio/pcmu"}}}))
    assert "input_audio_buffer.committed" in types(
        driven.send({"type": "input_audio_buffer.commit"})
    )


def test_old_text_that_can_be_in_no_prompt_leaves_the_conversation() -> None:
    driven = Driven(limits=SMALL)
    for number in range(3):
        driven.send(text_item("x" * 700, id=f"u{number}"))
    seen = driven.send(text_item("x" * 700, id="u3"))
    assert "conversation.item.deleted" in types(seen)
    driven.send({"type": "response.create"})
    assert [item.id for item in driven.runs[-1].items] == ["u2", "u3"]


def test_a_long_answer_makes_old_items_leave_too() -> None:
    driven = Driven(limits=SMALL)
    for number in range(2):
        driven.send(text_item("x" * 700, id=f"u{number}"))
    driven.send({"type": "response.create", "response": {"output_modalities": ["text"]}})
    run = driven.runs[-1]
    driven.happen(fx.RunText(run.response_id, "y" * 700, 1, 0))
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    driven.send(text_item("z"))
    driven.send({"type": "response.create"})
    assert "u0" not in [item.id for item in driven.runs[-1].items]


@pytest.mark.parametrize(
    ("message", "param", "now"),
    [
        (session(input_audio_format="pcm16"), "session.input_audio_format", "audio.input.format"),
        (session(modalities=["text"]), "session.modalities", "output_modalities"),
        (session(audio={"input": {"voice": "amy"}}), "session.audio.input.voice", ""),
        (session(instrucions="be brief"), "session.instrucions", ""),
        (
            {"type": "response.create", "response": {"modalities": ["text"]}},
            "response.modalities",
            "output_modalities",
        ),
    ],
)
def test_a_key_that_means_nothing_is_named(message: Json, param: str, now: str) -> None:
    error = refusal(Driven().send(message | {"event_id": "mine"})).error
    assert (error.code, error.param, error.event_id) == ("unknown_parameter", param, "mine")
    assert now in error.message


def test_keys_of_the_protocol_that_this_server_has_no_use_for_are_taken() -> None:
    seen = Driven().send(session(tracing="auto", prompt=None, include=None))
    assert types(seen) == ["session.updated"]


def test_a_null_leaves_a_setting_as_it_is_but_switches_turn_detection_off() -> None:
    driven = Driven()
    nulls = dict.fromkeys(
        ("instructions", "max_output_tokens", "tools", "tool_choice", "output_modalities")
    )
    audio = {"input": {"turn_detection": None}, "output": {"voice": None, "speed": None}}
    driven.send(session(**nulls, audio=audio))
    assert driven.machine.session.audio.input.turn_detection is None
    assert driven.machine.session.audio.output.voice == "joe"
    response = {"conversation": None, "audio": None, "output_modalities": None}
    assert error_codes(driven.send({"type": "response.create", "response": response})) == []


def test_an_error_names_the_path_that_the_client_wrote() -> None:
    update = session(audio={"input": {"format": {"type": "audio/pcm", "rate": 7}}})
    assert refusal(Driven().send(update)).error.param == "session.audio.input.format.rate"


def test_an_answer_stands_behind_what_it_answers_whatever_came_since() -> None:
    driven = Driven()
    driven.send(text_item("first", id="item_u1"))
    driven.send({"type": "response.create"})
    driven.send(text_item("second", id="item_u2"))
    run = driven.runs[-1]
    driven.happen(fx.RunText(run.response_id, "answer", 1, 0))
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    driven.send({"type": "response.create"})
    assert [item.id for item in driven.runs[-1].items] == ["item_u1", run.item_id, "item_u2"]
