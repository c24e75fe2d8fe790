"""docs/conformance.md is what openai-python's newest types say and what this server does."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from conformance import (
    DOCUMENT,
    Field,
    Step,
    client_fields,
    document,
    judged,
    ours_by_type,
    server_types,
    verdict_key,
)
from conformance_verdicts import (
    ANSWER,
    CLIENT,
    NEVER_SENT,
    RUNNING,
    SAMPLES,
    USER_ITEM,
    Verdict,
)
from driven_machine import Driven
from pydantic import TypeAdapter
from sdk_events import complaints

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.types import Json

EVENT: TypeAdapter[server.ServerEvent] = TypeAdapter(server.ServerEvent)
ABSENT = object()
TOOL = {"type": "function", "name": "f"}
CALL = {"type": "function_call", "call_id": SAMPLES["call_id"], "name": "f", "arguments": "{}"}


def test_the_document_is_the_one_that_the_types_and_verdicts_give() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == document(text), "run: python tests/support/conformance.py"


def test_no_verdict_is_left_of_a_field_that_is_gone() -> None:
    assert CLIENT.keys() - {verdict_key(field) for field in client_fields()} == set()


def test_what_is_said_never_to_be_sent_is_openais_and_not_ours() -> None:
    assert NEVER_SENT.keys() == server_types() - ours_by_type().keys()


def on_the_wire(outputs: list[Output]) -> list[Json]:
    events = [one for one in outputs if isinstance(one, server.FromServer)]
    return [EVENT.dump_python(one, mode="json") for one in events]


def value_at(thing: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        match thing, step:
            case dict(), str():
                thing = thing.get(step, ABSENT)
            case list(), int() if step < len(thing):
                thing = thing[step]
            case _:
                return ABSENT
    return thing


def a_session_for(field: Field) -> tuple[Driven, dict[str, str]]:
    """A session in which the field's event makes sense, and the ids that it has."""
    if field.path.startswith("session(transcription)"):
        return Driven(type="transcription"), {}
    driven = Driven()
    text = [{"type": "input_text", "text": "x"}]
    item = {"type": "message", "role": "user", "id": USER_ITEM, "content": text}
    driven.send({"type": "conversation.item.create", "item": item})
    driven.send({"type": "conversation.item.create", "item": CALL})
    driven.send({"type": "session.update", "session": {"tools": [TOOL]}})
    ids = {}
    if field.event in ("conversation.item.truncate", "response.cancel"):
        driven.send({"type": "response.create"})
        run = driven.runs[-1]
        driven.happen(fx.RunSound(run.response_id, bytes(9600), 5))
        ids = {ANSWER: run.item_id, RUNNING: run.response_id}
    if field.event == "input_audio_buffer.commit":
        sound = base64.b64encode(bytes(9600)).decode()
        driven.send({"type": "input_audio_buffer.append", "audio": sound})
    return driven, ids


def with_its_call(message: Json) -> Json:
    """The message; an output among its input has its call there, too."""
    given = message.get("response", {}).get("input")
    if not given or given[0].get("type") != "function_call_output":
        return message
    return {**message, "response": {**message["response"], "input": [CALL, *given]}}


def named(message: Any, ids: dict[str, str]) -> Any:
    match message:
        case dict():
            return {key: named(value, ids) for key, value in message.items()}
        case str():
            return ids.get(message, message)
        case _:
            return message


SHOWN_BY = {
    "session.update": "session.updated",
    "conversation.item.create": "conversation.item.added",
    "response.create": "response.created",
}
# Not shown in what comes back, whatever is done with it.
HIDDEN = ("event_id", "previous_item_id")


@pytest.mark.parametrize(
    ("field", "verdict"),
    [
        pytest.param(field, verdict, id=f"{field.event} {field.path}")
        for field, _, verdict in judged()
    ],
)
def test_the_server_does_with_a_field_what_the_document_says(
    field: Field, verdict: Verdict
) -> None:
    driven, ids = a_session_for(field)
    events = on_the_wire(driven.send(named(with_its_call(field.message(field.sample)), ids)))
    assert [complaints(event) for event in events if complaints(event)] == []
    refused = [event["error"] for event in events if event["type"] == "error"]
    if verdict.word == "refuse":
        assert [error["type"] for error in refused] == ["invalid_request_error"]
        assert on_the_wire(driven.send({"type": "session.update", "session": {}}))
        return
    assert refused == []
    shown = [event for event in events if event["type"] == SHOWN_BY.get(field.event)]
    if not shown or field.steps[0] in HIDDEN:
        return
    came_back = value_at(shown[0], field.steps)
    if verdict.word == "taken":
        assert came_back != field.sample or came_back is ABSENT
    elif verdict.shown and (field.event != "response.create" or came_back is not ABSENT):
        assert came_back == field.sample or came_back.items() >= field.sample.items()
