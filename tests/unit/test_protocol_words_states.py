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

    def take(self, outputs: list[Output]) -> list[Output]:
        for output in super().take(outputs):
            if isinstance(output, fx.Commit):
                self.unended.append(output.item_id)
                if self.machine.session.audio.input.transcription is not None:
                    self.promised.append(output.item_id)
        return outputs

    def end(self, pick: int, make: Callable[[str], fx.Input]) -> None:
        if self.unended:
            self.happen(make(self.unended.pop(pick)))


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
