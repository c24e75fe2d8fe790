"""Words and turns in every order: an item that was promised words gets exactly one end of them."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from driven_machine import Driven
from state_space import explore

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.machine import SessionMachine
from aqaa.server.protocol.types import Json

SOUND = base64.b64encode(bytes(9_600)).decode()  # 200 ms of pcm16 at 24 kHz
IRRELEVANT = frozenset({"_event_ids", "done", "modality", "default", "item_of", "_make_id", "runs"})
PIECES = (("word", -1.0),)


class Listener(Driven):
    """A client that may want words, and a recogniser that ends each turn's words at most once."""

    def __init__(self) -> None:
        self.promised: list[str] = []  # committed while words were wanted
        self.unended: list[str] = []  # turns that the recogniser is still at
        super().__init__(items=2)

    def do(self, effect: fx.Effect) -> list[Output]:
        if isinstance(effect, fx.Commit):
            self.unended.append(effect.item_id)
            if self.machine.session.audio.input.transcription is not None:
                self.promised.append(effect.item_id)
        return super().do(effect)

    def end(self, pick: int, make: Callable[[str], fx.Input]) -> None:
        if self.unended:
            self.happen(make(self.unended.pop(pick)))


class Prompt(Listener):
    """All is known in the pause: turns end with their words, and answers begin with their sound."""

    def do(self, effect: fx.Effect) -> list[Output]:
        said = super().do(effect)
        match effect:
            case fx.Commit(item_id=item):
                self.unended.remove(item)
                for given in (fx.UserWords(item, PIECES), whole(item)):
                    said += self.happen(given)
            case fx.StartRun(response_id=run):
                said += self.happen(fx.RunSound(run, bytes(5760), 5))
                assert set(self.promised) <= self.reader.transcribed, "sound before words"
        return said


def client(kind: str, **fields: object) -> Callable[[Listener], object]:
    return lambda listener: listener.send({"type": kind, **fields})


def words_wanted(transcription: Json | None) -> Callable[[Listener], object]:
    update = {"type": "realtime", "audio": {"input": {"transcription": transcription}}}
    return client("session.update", session=update)


def whole(item: str) -> fx.Input:
    return fx.UserWordsEnded(item, "word", PIECES, 0.2)


ACTIONS: dict[str, Callable[[Listener], object]] = {
    "append": client("input_audio_buffer.append", audio=SOUND),
    "commit": client("input_audio_buffer.commit"),
    "clear": client("input_audio_buffer.clear"),
    "no words": words_wanted(None),
    "words": words_wanted({"model": "whisper-1"}),
    "live words": words_wanted({"model": "gpt-realtime-whisper"}),
    "speech starts": lambda listener: listener.happen(fx.SpeechStarted(0)),
    "speech goes on": lambda listener: listener.happen(fx.SpeechResumed(0)),
    "speech stops": lambda listener: listener.happen(fx.SpeechStopped(900, (7,))),
    "a live word": lambda listener: listener.machine.on_input(fx.UserWords(None, PIECES)),
    "a word": lambda listener: listener.happen(fx.UserWords(listener.item(-1), PIECES)),
    "the oldest words end": lambda listener: listener.end(0, whole),
    "the newest words fail": lambda listener: listener.end(-1, fx.UserWordsFailed),
    "delete the last": lambda listener: listener.send(
        {"type": "conversation.item.delete", "item_id": listener.item(-1)}
    ),
}


def each_promise_is_kept(listener: Listener) -> None:
    """Once the recogniser is through; that nothing follows an end is the reader's to see."""
    listener.send({"type": "input_audio_buffer.clear"})  # a turn that goes on holds some back
    while listener.unended:
        listener.end(0, whole)
    left = [item for item in listener.promised if item in listener.reader.order]
    assert set(left) <= listener.reader.transcribed, "an item waits for its words for ever"
    assert listener.reader.transcribed <= set(listener.promised), "words that nobody asked for"


def test_every_short_sequence_of_turns_and_words_keeps_each_promise() -> None:
    assert explore(Listener(), ACTIONS, 7, each_promise_is_kept, IRRELEVANT).states > 500


def test_words_that_are_known_come_after_their_item_and_before_the_answer_sounds() -> None:
    """The first is the reader's to see."""
    assert explore(Prompt(), ACTIONS, 6, lambda prompt: None, IRRELEVANT).states > 400


def test_a_turn_that_is_handed_on_before_it_is_told_would_be_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commit_buffer = SessionMachine._commit_buffer

    def effects_first(self: SessionMachine, tokens: tuple[int, ...] | None = None) -> list[Output]:
        outputs = commit_buffer(self, tokens)
        return sorted(outputs, key=lambda output: not isinstance(output, fx.Commit))

    monkeypatch.setattr(SessionMachine, "_commit_buffer", effects_first)
    with pytest.raises(AssertionError, match="of no item"):
        explore(Prompt(), ACTIONS, 3, lambda prompt: None, IRRELEVANT)


def test_a_promise_that_is_forgotten_would_be_found() -> None:
    def forgets(listener: Listener) -> None:
        listener.unended.clear()
        each_promise_is_kept(listener)

    with pytest.raises(AssertionError, match="for ever") as caught:
        explore(Listener(), ACTIONS, 3, forgets, IRRELEVANT)
    assert caught.value.__notes__ == ["after: append, words, commit"]


def test_a_live_word_is_of_the_item_that_the_turn_becomes() -> None:
    listener = Listener()
    ACTIONS["live words"](listener)
    ACTIONS["append"](listener)
    (delta,) = listener.machine.on_input(fx.UserWords(None, PIECES))
    ACTIONS["commit"](listener)
    assert isinstance(delta, server.InputAudioTranscriptionDelta)
    assert listener.promised == [delta.item_id]
