"""docs/conformance.md is what openai-python's newest types say and what this server does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from conformance import (
    Field,
    Step,
    client_fields,
    judged,
    ours_by_type,
    server_types,
    verdict_key,
)
from conformance_document import DOCUMENT, document
from conformance_tour import a_session_for, named, on_the_wire, with_its_call
from conformance_verdicts import CLIENT, NEVER_SENT, Verdict
from sdk_events import complaints

ABSENT = object()


def test_the_document_is_the_one_that_the_types_and_verdicts_give() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == document(text), "run: python tests/support/conformance_document.py"


def test_no_verdict_is_left_of_a_field_that_is_gone() -> None:
    assert CLIENT.keys() - {verdict_key(field) for field in client_fields()} == set()


def test_what_is_said_never_to_be_sent_is_openais_and_not_ours() -> None:
    assert NEVER_SENT.keys() == server_types() - ours_by_type().keys()


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
