"""What a client remembers of its conversation, event by event."""

from __future__ import annotations

import base64

from aqaa.clients.history import MOST_ITEMS, NOTHING_SPOKEN, SOUND_MS, History
from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import (
    FunctionCallOutput,
    InputSound,
    InputText,
    Message,
    OutputSound,
)

RATE = 8000
MS = 2 * RATE // 1000


def sound(milliseconds: int, byte: int = 1) -> client.InputAudioBufferAppend:
    return client.InputAudioBufferAppend(audio=bytes([byte]) * (milliseconds * MS))


def spoken(history: History, item: str, begin: int, end: int) -> None:
    history.received(
        server.InputAudioBufferSpeechStarted(event_id="", audio_start_ms=begin, item_id=item)
    )
    history.received(
        server.InputAudioBufferSpeechStopped(event_id="", audio_end_ms=end, item_id=item)
    )
    history.received(
        server.InputAudioBufferCommitted(event_id="", previous_item_id=None, item_id=item)
    )


def done(response: str) -> server.ResponseDone:
    over = {"id": response, "status": "completed", "output_modalities": ["audio"]}
    audio = {"output": {"format": {"type": "audio/pcm", "rate": RATE}, "voice": "joe"}}
    return server.ResponseDone.model_validate(
        {"event_id": "", "response": {**over, "audio": audio}}
    )


def understood(history: History, item: str, words: str) -> None:
    history.received(
        server.InputAudioTranscriptionCompleted.model_validate(
            {
                "event_id": "",
                "item_id": item,
                "transcript": words,
                "usage": {"type": "duration", "seconds": 1},
            }
        )
    )


def replayed_items(history: History) -> list[Message]:
    return [
        event.item
        for event in history.replay()
        if isinstance(event, client.ConversationItemCreate) and isinstance(event.item, Message)
    ]


def replayed_sound(history: History) -> int:
    """Milliseconds that no item holds."""
    appends = [e for e in history.replay() if isinstance(e, client.InputAudioBufferAppend)]
    return sum(len(event.audio) for event in appends) // MS


def test_a_spoken_turn_is_told_as_the_sound_between_its_ends() -> None:
    history = History(RATE)
    history.sent(sound(1000, 1))
    history.sent(sound(2000, 2))
    history.sent(sound(1000, 3))
    spoken(history, "a", 1000, 3000)
    (turn,) = replayed_items(history)
    assert turn.content == [InputSound(audio=bytes([2]) * (2000 * MS))]


def test_a_turn_that_was_committed_by_hand_is_all_sound_since_the_last() -> None:
    history = History(RATE)
    history.sent(sound(500, 1))
    history.sent(client.InputAudioBufferCommit())
    history.sent(sound(100, 2))  # is sent before the server has said that it committed
    history.received(
        server.InputAudioBufferCommitted(event_id="", previous_item_id=None, item_id="a")
    )
    (turn,) = replayed_items(history)
    assert turn.content == [InputSound(audio=bytes([1]) * (500 * MS))]


def test_old_turns_keep_their_words_and_lose_their_sound() -> None:
    history = History(RATE)
    for number in range(4):
        history.sent(sound(25_000))
        spoken(history, f"turn-{number}", 25_000 * number, 25_000 * (number + 1))
        understood(history, f"turn-{number}", f"words {number}")
    told = replayed_items(history)
    assert [turn.content[0] for turn in told[:2]] == [
        InputText(text="words 0"),
        InputText(text="words 1"),
    ]
    assert all(isinstance(turn.content[0], InputSound) for turn in told[2:])


def test_the_conversation_begins_after_a_turn_that_nothing_is_left_of() -> None:
    history = History(RATE)
    for number in range(4):
        history.sent(sound(25_000))
        spoken(history, f"turn-{number}", 25_000 * number, 25_000 * (number + 1))
    assert [turn.id for turn in replayed_items(history)] == ["turn-2", "turn-3"]


def test_silence_is_forgotten_but_for_its_last_second() -> None:
    history = History(RATE)
    for _ in range(100):
        history.sent(sound(1000))
    assert replayed_sound(history) == 1000


def test_a_turn_in_the_middle_is_told_from_its_beginning_and_only_once() -> None:
    history = History(RATE)
    history.sent(sound(5000))
    history.received(
        server.InputAudioBufferSpeechStarted(event_id="", audio_start_ms=2000, item_id="a")
    )
    assert replayed_sound(history) == 3000
    history.sent(sound(500))
    history.received(
        server.InputAudioBufferSpeechStarted(event_id="", audio_start_ms=0, item_id="b")
    )
    assert replayed_sound(history) == 3500  # of the new session's sound


def by_hand() -> History:
    """Of a session that leaves turns to its client; two seconds of one are there."""
    history = History(RATE)
    audio = {"input": {"turn_detection": None}}
    session = {"type": "realtime", "id": "s", "model": "nano", "audio": audio}
    history.received(server.SessionUpdated.model_validate({"event_id": "", "session": session}))
    history.sent(sound(2000))
    return history


def refused(history: History) -> None:
    error = {"type": "invalid_request_error", "code": NOTHING_SPOKEN, "message": ""}
    history.received(server.ErrorEvent.model_validate({"event_id": "", "error": error}))


def test_a_turn_by_hand_in_which_nobody_spoke_is_over() -> None:
    history = by_hand()
    history.sent(client.InputAudioBufferCommit())
    history.sent(client.ResponseCreate())
    refused(history)
    refused(history)
    history.sent(client.InputAudioBufferClear())
    history.sent(sound(500, 2))
    assert list(history.replay()) == [sound(500, 2)]


def test_a_refused_turn_takes_no_answer_with_it_that_was_asked_for_before() -> None:
    history = by_hand()
    history.sent(client.ResponseCreate())
    history.sent(client.InputAudioBufferCommit())
    refused(history)
    assert list(history.replay())[-1] == client.ResponseCreate()


def test_a_turn_that_was_cleared_before_it_could_be_committed_is_none() -> None:
    history = by_hand()
    history.sent(client.InputAudioBufferCommit())
    history.sent(client.InputAudioBufferClear())
    history.sent(sound(500, 2))
    assert list(history.replay()) == [sound(500, 2)]


def test_a_turn_that_is_committed_in_the_new_session_holds_what_that_session_heard() -> None:
    history = by_hand()
    history.sent(client.InputAudioBufferCommit())
    history.received(
        server.InputAudioBufferCommitted(event_id="", previous_item_id=None, item_id="a")
    )
    history.sent(sound(1000, 2))
    history.sent(client.InputAudioBufferCommit())
    *_, committed = history.replay()
    assert committed == client.InputAudioBufferCommit()
    history.sent(sound(500, 3))
    history.received(
        server.InputAudioBufferCommitted(event_id="", previous_item_id="a", item_id="b")
    )
    *_, turn, pending = history.replay()
    assert isinstance(turn, client.ConversationItemCreate)
    assert isinstance(turn.item, Message)
    assert turn.item.content == [InputSound(audio=bytes([2]) * (1000 * MS))]
    assert pending == sound(500, 3)


def test_two_losses_in_a_row_leave_the_turn_its_beginning() -> None:
    history = History(RATE)
    history.sent(sound(10_000))
    history.received(
        server.InputAudioBufferSpeechStarted(event_id="", audio_start_ms=2000, item_id="a")
    )
    assert [replayed_sound(history) for _ in range(2)] == [8000, 8000]


def test_what_a_client_remembers_is_bounded() -> None:
    history = History(RATE)
    for number in range(2 * MOST_ITEMS):
        history.sent(sound(1000))
        spoken(history, f"turn-{number}", 1000 * number, 1000 * (number + 1))
        history.sent(
            client.ConversationItemCreate(
                item=Message(id=f"typed-{number}", role="user", content=[InputText(text="x")])
            )
        )
    told = replayed_items(history)
    assert len(told) <= MOST_ITEMS
    sounds = [part.audio for turn in told for part in turn.content if isinstance(part, InputSound)]
    assert sum(len(audio or b"") for audio in sounds) <= SOUND_MS * MS


def test_an_answer_that_is_not_over_is_asked_for_again_and_not_told() -> None:
    history = History(RATE)
    history.sent(client.ResponseCreate())
    answer = Message(id="answer", role="assistant", content=[], status="in_progress")
    of_answer = {"event_id": "", "response_id": "r", "item_id": "answer"}
    history.received(server.ResponseOutputItemAdded(event_id="", response_id="r", item=answer))
    history.received(
        server.ResponseOutputAudioTranscriptDelta.model_validate({**of_answer, "delta": "half of"})
    )
    data = base64.b64encode(bytes(100 * MS)).decode()
    history.received(server.ResponseOutputAudioDelta.model_validate({**of_answer, "delta": data}))
    assert list(history.replay()) == [client.ResponseCreate()]


def test_an_answer_of_the_old_session_that_is_cut_in_the_new_is_replaced_in_its_place() -> None:
    history = History(RATE)
    of_answer = {"event_id": "", "response_id": "r", "item_id": "answer"}
    words = server.ResponseOutputAudioTranscriptDelta
    answer = Message(id="answer", role="assistant", content=[], status="in_progress")
    history.received(server.ResponseOutputItemAdded(event_id="", response_id="r", item=answer))
    history.received(words.model_validate({**of_answer, "delta": "heard, "}))
    data = base64.b64encode(bytes(100 * MS)).decode()
    history.received(server.ResponseOutputAudioDelta.model_validate({**of_answer, "delta": data}))
    history.received(words.model_validate({**of_answer, "delta": "not heard"}))
    history.received(done("r"))
    cut = client.ConversationItemTruncate(item_id="answer", audio_end_ms=50)
    (told,) = replayed_items(history)
    created, deleted = history.sent(cut)
    assert told.content == [OutputSound(transcript="heard, not heard")]
    assert isinstance(created, client.ConversationItemCreate)
    assert isinstance(created.item, Message)
    assert (created.previous_item_id, created.item.content) == (
        "answer",
        [OutputSound(transcript="heard, ")],
    )
    assert deleted == client.ConversationItemDelete(item_id="answer")
    (kept,) = replayed_items(history)
    assert kept == created.item


def called(history: History, call_id: str) -> None:
    history.received(
        server.ResponseFunctionCallArgumentsDone(
            event_id="", response_id="r", item_id=f"i{call_id}", output_index=0, call_id=call_id,
            name="f", arguments="{}",
        )
    )  # fmt: skip
    output = FunctionCallOutput(
        id=f"o{call_id}", type="function_call_output", call_id=call_id, output="ok"
    )
    history.sent(client.ConversationItemCreate(item=output))


def test_calls_are_told_with_what_they_gave_back() -> None:
    history = History(RATE)
    called(history, "1")
    told = [e.item.id for e in history.replay() if isinstance(e, client.ConversationItemCreate)]
    assert told == ["i1", "o1"]


def test_what_a_forgotten_call_gave_back_is_not_told() -> None:
    history = History(RATE)
    called(history, "1")
    for number in range(MOST_ITEMS - 1):
        item = Message(id=f"m{number}", role="user", content=[InputText(text="x")])
        history.sent(client.ConversationItemCreate(item=item))
    told = [e.item.id for e in history.replay() if isinstance(e, client.ConversationItemCreate)]
    assert told == [f"m{number}" for number in range(MOST_ITEMS - 1)]
