"""Turns that go on, calls and words, explored in one session: none breaks another's promise."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable

import pytest
from driven_machine import Caller
from state_space import explore

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.machine import SessionMachine

SOUND = base64.b64encode(bytes(9_600)).decode()  # 200 ms of pcm16 at 24 kHz
WORDS = {"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}}
# Nothing depends on them: names of events, and what is kept of what is over.
IRRELEVANT = frozenset(
    {"_event_ids", "done", "modality", "default", "item_of", "_make_id", "runs", "told"}
)


class Household(Caller):
    """A caller whose turns have words, and a recogniser that is late."""

    def __init__(self) -> None:
        self.unended: list[str] = []  # turns that the recogniser is still at
        super().__init__()
        self.send({"type": "session.update", "session": WORDS})

    def do(self, effect: fx.Effect) -> list[Output]:
        if isinstance(effect, fx.Commit):
            self.unended.append(effect.item_id)
        return super().do(effect)

    def end_words(self) -> None:
        if self.unended:
            self.happen(fx.UserWordsEnded(self.unended.pop(0), "word", (("word", -1.0),), 0.2))


def heard(given: fx.Input) -> Callable[[Household], object]:
    return lambda house: house.happen(given)


ACTIONS: dict[str, Callable[[Household], object]] = {
    "speech starts": heard(fx.SpeechStarted(0)),
    "speech goes on": heard(fx.SpeechResumed(0)),
    "speech stops": heard(fx.SpeechStopped(900, (7,))),
    "it was nothing": heard(fx.SpeechStopped(900, (7,), nothing=True)),
    "append": lambda house: house.send({"type": "input_audio_buffer.append", "audio": SOUND}),
    "commit": lambda house: house.send({"type": "input_audio_buffer.commit"}),
    "clear": lambda house: house.send({"type": "input_audio_buffer.clear"}),
    # Of an item that is not there yet, which the reader would not have.
    "a live word": lambda house: house.machine.on_input(fx.UserWords(None, (("word", -1.0),))),
    "the oldest words end": Household.end_words,
    "sound": lambda house: house.progress(lambda run: fx.RunSound(run, bytes(5760), 5)),
    "call": lambda house: house.progress(lambda run: fx.RunCall(run, "f", "{}", 4)),
    "end": Household.end,
    "give back": Household.give_back,
    "delete the last": lambda house: house.send(
        {"type": "conversation.item.delete", "item_id": house.item(-1)}
    ),
}


def all_promises_are_kept(house: Household) -> None:
    """Once the model and the recogniser are through; order is the reader's to see."""
    house.send({"type": "input_audio_buffer.clear"})  # a turn that goes on holds some back
    while house.running:
        house.end()
    while house.unended:
        house.end_words()
    assert all(count == 1 for count in house.reader.done.values())
    assert len(house.reader.done) == len(house.runs)
    for calls in house.reader.calls.values():
        assert all(steps[-1] == "response.output_item.done" for steps in calls.values())
    turns = {
        item.id for item in house.machine.next_run().items if getattr(item, "role", "") == "user"
    }
    assert turns <= house.reader.transcribed, "an item waits for its words for ever"


def test_every_short_sequence_keeps_all_promises() -> None:
    assert explore(Household(), ACTIONS, 6, all_promises_are_kept, IRRELEVANT).states > 800


@pytest.mark.deep
def test_every_longer_sequence_keeps_all_promises(capsys: pytest.CaptureFixture[str]) -> None:
    found = explore(Household(), ACTIONS, 8, all_promises_are_kept, IRRELEVANT)
    with capsys.disabled():
        sys.stdout.write(f"\n{found.states} states, {found.steps} steps of 8 at most: ")
    assert found.states > 10_000


def test_words_that_a_turn_that_goes_on_loses_would_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loses(self: SessionMachine) -> list[Output]:
        self._taken_back, self._held_words = (), []
        return []

    monkeypatch.setattr(SessionMachine, "_nothing_is_taken_back", loses)
    with pytest.raises(AssertionError, match="for ever") as caught:
        explore(Household(), ACTIONS, 4, all_promises_are_kept, IRRELEVANT)
    (path,) = caught.value.__notes__
    assert path.endswith("speech stops, speech goes on, the oldest words end")
