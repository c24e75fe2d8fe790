"""The session machine, explored: what holds after every sequence of a few events, holds."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable

import pytest
from driven_machine import Driven
from state_space import Explored, explore, fork, shape

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.response import OpenResponse
from aqaa.server.protocol.types import Json

SOUND = base64.b64encode(bytes(9_600)).decode()  # 200 ms of pcm16 at 24 kHz
HELLO: Json = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
SPOKEN: Json = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_audio", "audio": SOUND}],
}
# Nothing depends on them: names of events, and what is kept of what is over.
IRRELEVANT = frozenset({"_event_ids", "done", "modality", "default", "item_of", "_make_id", "runs"})


class Session(Driven):
    """A driven machine whose driver accounts for what it runs and what it keeps."""

    def __init__(self, items: int) -> None:
        self.running: list[str] = []  # runs that were started and neither stopped nor ended
        self.over: list[str] = []
        self.kept: list[str] = []  # items whose tokens or ids the driver keeps
        super().__init__(items)

    def do(self, effect: fx.Effect) -> list[Output]:
        match effect:
            case fx.StartRun():
                self.running.append(effect.response_id)
                self.kept.append(effect.item_id)
            case fx.StopRun():
                self.running.remove(effect.response_id)  # or it was stopped twice
                self.over = [effect.response_id]
            case fx.Commit() | fx.StoreAudio():
                assert effect.item_id not in self.kept, "an item's sound came twice"
                self.kept.append(effect.item_id)
            case fx.ForgetItem():
                self.kept = [one for one in self.kept if one != effect.item_id]
        return super().do(effect)

    def end(self, pick: int, status: str) -> None:
        """A run ends by itself."""
        if self.running:
            response_id = self.running.pop(pick)
            self.over = [response_id]
            self.happen(fx.RunEnded(response_id, status))  # type: ignore[arg-type]

    def progress(self, pick: int, make: Callable[[str], fx.Input]) -> None:
        """A run brings something."""
        if self.running:
            self.happen(make(self.running[pick]))


def client(kind: str, **fields: object) -> Callable[[Session], object]:
    return lambda session: session.send({"type": kind, **fields})


def detection(**rules: object) -> Callable[[Session], object]:
    turns = {"type": "server_vad", **rules} if rules else None
    update = {"type": "realtime", "audio": {"input": {"turn_detection": turns}}}
    return client("session.update", session=update)


def about_last(kind: str, **fields: object) -> Callable[[Session], object]:
    """About the conversation's last item."""
    return lambda session: session.send({"type": kind, "item_id": session.item(-1), **fields})


def heard(given: fx.Input) -> Callable[[Session], object]:
    return lambda session: session.happen(given)


CLIENT: dict[str, Callable[[Session], object]] = {
    "append": client("input_audio_buffer.append", audio=SOUND),
    "commit": client("input_audio_buffer.commit"),
    "clear": client("input_audio_buffer.clear"),
    "turns by hand": detection(),
    "turns that do not interrupt": detection(interrupt_response=False),
    "an item": client("conversation.item.create", item=HELLO),
    "a spoken item": client("conversation.item.create", item=SPOKEN),
    "retrieve the last": about_last("conversation.item.retrieve"),
    "delete the last": about_last("conversation.item.delete"),
    "truncate the last": about_last("conversation.item.truncate", content_index=0, audio_end_ms=60),
    "answer": client("response.create"),
    "answer in writing": client("response.create", response={"output_modalities": ["text"]}),
    "answer aside": client("response.create", response={"conversation": "none", "input": [SPOKEN]}),
    "cancel": client("response.cancel"),
}
EARS: dict[str, Callable[[Session], object]] = {
    "speech starts": heard(fx.SpeechStarted(0)),
    "speech goes on": heard(fx.SpeechResumed(0)),
    "speech stops": heard(fx.SpeechStopped(900, (7,))),
    "it was nothing": heard(fx.SpeechStopped(900, (7,), nothing=True)),
    "nobody speaks": heard(fx.IdleTimedOut(0, 900, (7,))),
}
ENGINE: dict[str, Callable[[Session], object]] = {
    "text": lambda session: session.progress(0, lambda run: fx.RunText(run, "word ", 1, 0)),
    "sound": lambda session: session.progress(0, lambda run: fx.RunSound(run, bytes(5760), 5)),
    "call": lambda session: session.progress(0, lambda run: fx.RunCall(run, "f", "{}", 4)),
    "end": lambda session: session.end(0, "completed"),
    "sound of the newest": lambda session: session.progress(
        -1, lambda run: fx.RunSound(run, bytes(5760), 5)
    ),
    "the newest fails": lambda session: session.end(-1, "failed"),
}


def nothing_is_wrong(session: Session) -> None:
    """The invariants of every state; the session is brought to its end to see them."""
    assert set(session.running) == set(session.reader.open), "runs without responses, or reverse"
    assert session.machine.answering() == bool(session.running)
    for run in session.over:  # the driver may lag behind the machine
        assert session.machine.on_input(fx.RunSound(run, bytes(480), 5)) == []
        assert session.machine.on_input(fx.RunEnded(run, "completed")) == []
    while session.running:  # an answer that waited for its turn may begin when another ends
        session.end(0, "completed")
    assert all(count == 1 for count in session.reader.done.values())
    assert len(session.reader.done) == len(session.runs)
    closed = fork(session)
    closed.take(closed.machine.close())
    assert closed.kept == [], "a session that closed was left behind"
    for item in list(session.reader.order):
        session.send({"type": "conversation.item.delete", "item_id": item})
    assert session.reader.order == []
    assert session.kept == [], "the driver was never told to forget"


def explored(
    actions: dict[str, Callable[[Session], object]], depth: int, items: int = 512
) -> Explored:
    return explore(Session(items), actions, depth, nothing_is_wrong, IRRELEVANT)


EVERYTHING = {**CLIENT, **EARS, **ENGINE}
# What one conversation is made of; the rest is seen in shorter sequences.
CORE = {
    name: action
    for name, action in EVERYTHING.items()
    if name
    not in ("an item", "answer in writing", "nobody speaks", "sound of the newest", "clear", "call")
}


@pytest.mark.parametrize("items", [2, 512])
def test_every_short_sequence_keeps_the_invariants(items: int) -> None:
    assert explored(EVERYTHING, 4, items).states > 1000


@pytest.mark.deep
@pytest.mark.parametrize(
    ("actions", "depth", "items"),
    [
        pytest.param(CORE, 6, 512, id="six of a conversation"),
        pytest.param(EVERYTHING, 5, 512, id="five of everything"),
        pytest.param(CORE, 5, 2, id="five where items leave"),
    ],
)
def test_every_longer_sequence_keeps_the_invariants(
    actions: dict[str, Callable[[Session], object]],
    depth: int,
    items: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = explored(actions, depth, items)
    with capsys.disabled():
        sys.stdout.write(f"\n{found.states} states, {found.steps} steps of {depth} at most: ")
    assert found.states > 2500


def test_a_response_without_its_end_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenResponse, "close", lambda self, status, details: [])
    with pytest.raises(AssertionError) as caught:
        explored(EVERYTHING, 1)
    assert caught.value.__notes__ == ["after: answer"]


def test_an_event_out_of_order_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    add_sound = OpenResponse.add_sound

    def late(self: OpenResponse, data: bytes, tokens: int) -> list[server.ServerEvent]:
        return [*add_sound(self, data, tokens), *self.created()]

    monkeypatch.setattr(OpenResponse, "add_sound", late)
    with pytest.raises(AssertionError, match="created twice") as caught:
        explored(EVERYTHING, 2)
    assert caught.value.__notes__ == ["after: answer, sound"]


def test_states_that_differ_in_names_only_are_one() -> None:
    one, other = Session(512), Session(512)
    other.send({"type": "input_audio_buffer.commit"})  # refused; its error has a name
    assert shape(one, IRRELEVANT) == shape(other, IRRELEVANT)
    other.send({"type": "input_audio_buffer.append", "audio": SOUND})
    assert shape(one, IRRELEVANT) != shape(other, IRRELEVANT)


def test_a_fork_goes_its_own_way() -> None:
    one = Session(512)
    before = shape(one)
    other = fork(one)
    other.send({"type": "response.create"})
    assert shape(one) == before != shape(other)
