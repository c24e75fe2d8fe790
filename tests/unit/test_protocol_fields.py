"""Single fields of the protocol: what is accepted, how it is shown, what an error says of it."""

from __future__ import annotations

import pytest
from driven_machine import Driven, types
from pydantic import TypeAdapter

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.response import FAILURES
from aqaa.server.protocol.types import ContentPart, Json

EVENT: TypeAdapter[server.ServerEvent] = TypeAdapter(server.ServerEvent)


TEXT = {"type": "input_text", "text": "x"}


def update(**session: object) -> Json:
    return {"type": "session.update", "session": session}


def audio_in(**settings: object) -> Json:
    return update(audio={"input": settings})


def create(**response: object) -> Json:
    return {"type": "response.create", "response": response}


def item(**fields: object) -> Json:
    message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    return {"type": "conversation.item.create", "item": message | fields}


def on_the_wire(outputs: list[Output]) -> list[Json]:
    return [
        EVENT.dump_python(one, mode="json") for one in outputs if isinstance(one, server.FromServer)
    ]


def error_of(message: Json) -> Json:
    (event,) = on_the_wire(Driven().send(message))
    assert event["type"] == "error"
    error: Json = event["error"]
    return error


def session_after(*messages: Json) -> Json:
    driven = Driven()
    for message in messages:
        last = on_the_wire(driven.send(message))
    session: Json = last[-1]["session"]
    return session


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (update(max_output_tokens=0), "session.max_output_tokens"),
        (update(max_output_tokens="many"), "session.max_output_tokens"),
        (update(tool_choice=3), "session.tool_choice"),
        (update(audio=3), "session.audio"),
        (update(tracing=7), "session.tracing"),
        (update(include=["everything"]), "session.include.0"),
        (update(tracing={"workflow_name": 3}), "session.tracing.workflow_name"),
        (update(truncation="none"), "session.truncation"),
        (
            update(truncation={"type": "retention_ratio", "retention_ratio": 7}),
            "session.truncation.retention_ratio",
        ),
        (audio_in(turn_detection={"type": "none"}), "session.audio.input.turn_detection.type"),
        (audio_in(turn_detection={"threshold": 3}), "session.audio.input.turn_detection.threshold"),
        (create(max_output_tokens=0), "response.max_output_tokens"),
        (create(metadata={"a": 1}), "response.metadata.a"),
        (create(input=[{"type": "thing"}]), "response.input.0.type"),
        (item(type="function_call", name="f", arguments=3), "item.arguments"),
        (item(content=[{"type": "input_audio", "audio": "!"}]), "item.content.0.audio"),
        (item(content=[{"type": "input_image", "image_url": "x"}]), "item.content.0.type"),
        (item(content=[{"type": "output_text", "text": "x"}]), "item.content.0.type"),
        (item(content=[TEXT, {"type": "output_audio"}]), "item.content.1.type"),
        (item(role="assistant", content=[TEXT]), "item.content.0.type"),
        (item(role="assistant", content=[{"type": "input_audio"}]), "item.content.0.type"),
        (item(role="system", content=[{"type": "input_audio"}]), "item.content.0.type"),
        (
            create(input=[item()["item"], item(role="assistant")["item"]]),
            "response.input.1.content.0.type",
        ),
        ({"type": "no.such.event"}, "type"),
    ],
)
def test_the_param_of_an_invalid_value_is_a_path_in_the_clients_own_message(
    message: Json, param: str
) -> None:
    error = error_of(message)
    assert (error["code"], error["param"]) == ("invalid_value", param)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (item(content=[{"type": "input_text"}]), "item.content.0.text"),
        (item(content=[{}]), "item.content.0.type"),
        (item(type="function_call_output", output="x"), "item.call_id"),
        (item(content=[{"type": "input_audio"}]), "item.content.0.audio"),
        (
            create(input=[item(content=[TEXT, {"type": "input_audio", "audio": None}])["item"]]),
            "response.input.0.content.1.audio",
        ),
        ({"type": "input_audio_buffer.append"}, "audio"),
        ({"type": "input_audio_buffer.append", "audio": None}, "audio"),
        ({}, "type"),
    ],
)
def test_a_missing_parameter_is_named_by_the_path_where_it_belongs(
    message: Json, param: str
) -> None:
    error = error_of(message)
    assert (error["code"], error["param"]) == ("missing_required_parameter", param)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (audio_in(turn_detection={"silence": 3}), "session.audio.input.turn_detection.silence"),
        (audio_in(transcription={"modl": "x"}), "session.audio.input.transcription.modl"),
        (audio_in(format={"sample_rate": 8000}), "session.audio.input.format.sample_rate"),
        (update(reasoning={"depth": 3}), "session.reasoning.depth"),
        (create(audio={"output": {"speed": 1}}), "response.audio.output.speed"),
        (update(tools=[{"name": "f", "inputSchema": {}}]), "session.tools.0.inputSchema"),
        (item(content=[TEXT, {"type": "input_audio", "data": "AAAA"}]), "item.content.1.data"),
        (item(speaker="Ann"), "item.speaker"),
        (create(input=[item(speaker="Ann")["item"]]), "response.input.0.speaker"),
        (item() | {"after": "u1"}, "after"),
        ({"type": "input_audio_buffer.append", "audio": "AAAA", "rate": 16000}, "rate"),
    ],
)
def test_a_key_that_means_nothing_is_found_at_any_depth(message: Json, param: str) -> None:
    error = error_of(message)
    assert (error["code"], error["param"]) == ("unknown_parameter", param)


def test_a_key_one_step_too_high_is_told_where_it_belongs() -> None:
    error = error_of({"type": "response.create", "instructions": "Say hello."})
    assert error["param"] == "instructions"
    assert "response.instructions" in error["message"]


def test_that_a_function_is_strict_goes_without_saying() -> None:
    (tool,) = session_after(update(tools=[{"name": "f", "strict": True}]))["tools"]
    assert tool == {"type": "function", "name": "f"}


def test_a_typed_clients_nulls_mean_what_it_did_not_set() -> None:
    driven = Driven()
    nulls = {"id": None, "object": None, "status": None}
    part = {"type": "input_text", "text": "x", "audio": None, "transcript": None, "detail": None}
    assert types(driven.send(item(**nulls, content=[part]) | {"previous_item_id": None})) == [
        "conversation.item.added",
        "conversation.item.done",
    ]
    silence = {"type": "semantic_vad", "eagerness": None, "create_response": None}
    seen = driven.send(update(type=None, audio={"input": {"turn_detection": silence}}))
    assert types(seen) == ["session.updated"]
    asked = {"tools": None, "tool_choice": None, "prompt": None, "reasoning": None, "input": None}
    assert types(driven.send(create(**asked)))[0] == "response.created"
    truncate = {"type": "conversation.item.truncate", "audio_end_ms": 0, "content_index": None}
    (event,) = on_the_wire(driven.send(truncate | {"item_id": "none"}))
    assert event["error"]["code"] == "item_truncate_invalid_item_id", "not of its content_index"


SETTINGS = [
    ("prompt", {"id": "pmpt_1", "version": "2", "variables": {"city": "Rome"}}),
    ("tracing", "auto"),
    ("tracing", {"workflow_name": "test", "metadata": {"a": 1}}),
    ("reasoning", {"effort": "low"}),
    ("truncation", "disabled"),
    ("truncation", {"type": "retention_ratio", "retention_ratio": 0.8}),
    (
        "truncation",
        {
            "type": "retention_ratio",
            "retention_ratio": 0.5,
            "token_limits": {"post_instructions": 500},
        },
    ),
]


@pytest.mark.parametrize(("name", "value"), SETTINGS)
def test_a_setting_is_shown_exactly_as_it_was_sent(name: str, value: object) -> None:
    assert session_after(update(**{name: value}))[name] == value
    assert session_after(update(**{name: value}), update(instructions="x"))[name] == value


def test_unset_they_are_null_or_left_out_as_openai_has_it() -> None:
    session = session_after(
        update(prompt={"id": "p"}, tracing="auto"), update(prompt=None, tracing=None)
    )
    assert (session["prompt"], session["tracing"]) == (None, None)
    assert "reasoning" not in session


def test_parallel_tool_calls_are_taken_and_not_shown() -> None:
    assert "parallel_tool_calls" not in session_after(update(parallel_tool_calls=False))


def test_an_answer_may_be_asked_for_with_all_of_them() -> None:
    seen = Driven().send(
        create(**dict(SETTINGS[:1]), reasoning={"effort": "low"}, parallel_tool_calls=True)
    )
    assert types(seen)[0] == "response.created"


def test_an_item_of_a_known_id_is_refused_in_openais_words() -> None:
    driven = Driven()
    driven.send(item(id="item_mine"))
    (event,) = on_the_wire(driven.send(item(id="item_mine") | {"event_id": "chat_ctx_create_1"}))
    assert event["error"] == {
        "type": "invalid_request_error",
        "code": "item_create_duplicate_item_id",
        "message": "Error adding item: an item with id 'item_mine' already exists.",
        "param": None,
        "event_id": "chat_ctx_create_1",
    }


@pytest.mark.parametrize("code", FAILURES)
def test_a_failed_response_says_to_people_why(code: str) -> None:
    driven = Driven()
    driven.send(create())
    done = on_the_wire(driven.happen(fx.RunEnded(driven.runs[-1].response_id, "failed", code)))[-1]
    error = done["response"]["status_details"]["error"]
    assert (error["type"], error["code"]) == ("server_error", code)
    assert error["message"].endswith((".", "reason."))


def test_a_cancelled_response_has_a_reason_and_no_error_key() -> None:
    driven = Driven()
    driven.send(create())
    done = on_the_wire(driven.send({"type": "response.cancel"}))[-1]
    details = done["response"]["status_details"]
    assert details == {"type": "cancelled", "reason": "client_cancelled"}


def test_a_part_has_no_key_of_the_other_kind() -> None:
    assert ContentPart(type="audio", transcript="").model_dump() == {
        "type": "audio",
        "transcript": "",
    }
    assert ContentPart(type="text", text="").model_dump() == {"type": "text", "text": ""}


def test_a_clients_function_call_without_an_id_is_shown_without_one() -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    added = on_the_wire(Driven().send({"type": "conversation.item.create", "item": call}))[0]
    assert "call_id" not in added["item"]
