"""Calls in every order: each is told whole, once, and a response with calls ends like any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driven_machine import Caller
from state_space import explore

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.response import OpenResponse

# Nothing depends on them: names of events, and what is kept of what is over.
IRRELEVANT = frozenset(
    {"_event_ids", "done", "modality", "default", "item_of", "_make_id", "runs", "told"}
)


def client(kind: str, **fields: object) -> Callable[[Caller], object]:
    return lambda caller: caller.send({"type": kind, **fields})


ACTIONS: dict[str, Callable[[Caller], object]] = {
    "answer": client("response.create"),
    "answer aside": client("response.create", response={"conversation": "none"}),
    "cancel": client("response.cancel"),
    "text": lambda caller: caller.progress(lambda run: fx.RunText(run, "word ", 1, 0)),
    "sound": lambda caller: caller.progress(lambda run: fx.RunSound(run, bytes(5760), 5)),
    "call": lambda caller: caller.progress(lambda run: fx.RunCall(run, "f", "{}", 4)),
    "end": lambda caller: caller.end("completed"),
    "fail": lambda caller: caller.end("failed"),
    "give back": Caller.give_back,
    "speech starts": lambda caller: caller.happen(fx.SpeechStarted(0)),
    "speech goes on": lambda caller: caller.happen(fx.SpeechResumed(0)),
    "speech stops": lambda caller: caller.happen(fx.SpeechStopped(900, (7,))),
    "delete the last": lambda caller: caller.send(
        {"type": "conversation.item.delete", "item_id": caller.item(-1)}
    ),
}


def every_call_is_whole(caller: Caller) -> None:
    """That it is told in order is the reader's to see."""
    while caller.running:
        caller.end("completed")
    assert all(count == 1 for count in caller.reader.done.values())
    for calls in caller.reader.calls.values():
        assert all(steps[-1] == "response.output_item.done" for steps in calls.values())


def test_every_short_sequence_tells_each_call_whole_and_once() -> None:
    assert explore(Caller(items=8), ACTIONS, 5, every_call_is_whole, IRRELEVANT).states > 2000


@pytest.mark.deep
def test_every_longer_sequence_tells_each_call_whole_and_once() -> None:
    assert explore(Caller(items=8), ACTIONS, 6, every_call_is_whole, IRRELEVANT).states > 10_000


def test_a_call_amid_what_is_said_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    add_call = OpenResponse.add_call

    def unclosed(self: OpenResponse, *given: Any) -> list[server.ServerEvent]:
        self._said = "completed"
        return add_call(self, *given)

    monkeypatch.setattr(OpenResponse, "add_call", unclosed)
    with pytest.raises(AssertionError, match="amid what is said") as caught:
        explore(Caller(items=8), ACTIONS, 3, every_call_is_whole, IRRELEVANT)
    assert caught.value.__notes__ == ["after: answer, text, call"]
