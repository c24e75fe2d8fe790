"""The words of the user's items on the wire: when they are told, in which order, in what form."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from driven_machine import Driven, error_codes, types
from realtime_grammar import IllegalSequenceError

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.types import Json

SECOND = base64.b64encode(bytes(48_000)).decode()
WORDS = "conversation.item.input_audio_transcription"


def update(**session: Any) -> Json:
    return {"type": "session.update", "session": {"type": "realtime", **session}}


def asking(transcription: Json | None, **session: Any) -> Driven:
    driven = Driven()
    driven.send(update(audio={"input": {"transcription": transcription}}, **session))
    return driven


def turn(driven: Driven) -> str:
    """The user speaks and the turn ends; its item's id."""
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    driven.happen(fx.SpeechStarted(100))
    driven.happen(fx.SpeechStopped(900, (7,)))
    item_id = driven.runs[-1].items[-1].id
    assert item_id is not None
    return item_id


def words(driven: Driven, item_id: str) -> list[Output]:
    return [
        *driven.happen(fx.UserWords(item_id, (("what is", -0.1), (" this", -0.2)))),
        *driven.happen(
            fx.UserWordsEnded(item_id, "what is this", (("what is", -0.1), (" this", -0.2)), 0.8)
        ),
    ]


def sent(outputs: list[Output]) -> list[Json]:
    return [one.model_dump() for one in outputs if isinstance(one, server.FromServer)]


def test_deltas_come_before_exactly_one_completed_with_its_usage() -> None:
    driven = asking({"model": "whisper-1"})
    item_id = turn(driven)
    delta, completed = sent(words(driven, item_id))
    assert delta == {
        "event_id": delta["event_id"],
        "type": f"{WORDS}.delta",
        "item_id": item_id,
        "content_index": 0,
        "delta": "what is this",
    }
    assert completed == {
        "event_id": completed["event_id"],
        "type": f"{WORDS}.completed",
        "item_id": item_id,
        "content_index": 0,
        "transcript": "what is this",
        "usage": {"type": "duration", "seconds": 0.8},
    }
    assert words(driven, item_id) == []


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"model": "gpt-4o-mini-transcribe"},
        {"model": "whisper-1", "language": "en", "prompt": "names"},
        {"model": "gpt-transcribe", "languages": ["en", "zh"], "keywords": ["aqaa"]},
        {"model": "gpt-realtime-whisper", "delay": "low"},
    ],
)
def test_what_was_asked_for_is_echoed_exactly(asked: Json) -> None:
    driven = Driven()
    (updated,) = sent(driven.send(update(audio={"input": {"transcription": asked}})))
    assert updated["session"]["audio"]["input"]["transcription"] == asked


def test_words_are_not_sent_unless_asked_for() -> None:
    driven = Driven()
    assert driven.machine.session.audio.input.transcription is None
    assert words(driven, turn(driven)) == []


def test_a_null_turns_words_off_and_the_turn_that_was_promised_some_gets_them() -> None:
    driven = asking({"model": "whisper-1"})
    promised = turn(driven)
    driven.happen(fx.RunEnded(driven.runs[-1].response_id, "completed"))
    driven.send(update(audio={"input": {"transcription": None}}))
    later = turn(driven)
    assert types(words(driven, later)) == []
    assert types(words(driven, promised)) == [f"{WORDS}.delta", f"{WORDS}.completed"]


def test_a_bundle_without_a_transcriber_says_so_and_sends_none() -> None:
    driven = Driven(transcribes=False)
    (updated,) = sent(driven.send(update(audio={"input": {"transcription": {"model": "x"}}})))
    assert updated["session"]["audio"]["input"]["transcription"] is None
    assert words(driven, turn(driven)) == []


def test_the_item_has_its_transcript_when_it_is_retrieved_and_not_before() -> None:
    driven = asking({"model": "whisper-1"})
    item_id = turn(driven)
    retrieve = {"type": "conversation.item.retrieve", "item_id": item_id}
    (before,) = sent(driven.send(retrieve))
    assert before["item"]["content"][0]["transcript"] is None
    words(driven, item_id)
    (after,) = sent(driven.send(retrieve))
    assert after["item"]["content"][0]["transcript"] == "what is this"


def test_failure_names_its_kind_and_leaves_the_transcript_empty() -> None:
    driven = asking({"model": "whisper-1"})
    item_id = turn(driven)
    (failed,) = sent(driven.happen(fx.UserWordsFailed(item_id)))
    assert failed["type"] == f"{WORDS}.failed"
    assert failed["error"]["type"] == "server_error"
    assert failed["error"]["code"] == "transcription_failed"
    assert failed["error"]["message"]
    assert "param" not in failed["error"]
    assert words(driven, item_id) == []


def test_log_probabilities_come_when_they_are_included() -> None:
    include = ["item.input_audio_transcription.logprobs"]
    driven = asking({"model": "whisper-1"}, include=include)
    delta, completed = sent(words(driven, turn(driven)))
    expected = [
        {"token": "what is", "bytes": list(b"what is"), "logprob": -0.1},
        {"token": " this", "bytes": list(b" this"), "logprob": -0.2},
    ]
    assert delta["logprobs"] == completed["logprobs"] == expected


def test_a_deleted_item_gets_no_words() -> None:
    driven = asking({"model": "whisper-1"})
    item_id = turn(driven)
    driven.send({"type": "conversation.item.delete", "item_id": item_id})
    assert words(driven, item_id) == []


def test_live_words_come_before_the_turn_is_an_item_for_models_that_promise_them() -> None:
    live = fx.UserWords(None, (("what", -0.1),))
    driven = asking({"model": "whisper-1"})
    assert driven.happen(live) == []
    driven = asking({"model": "gpt-realtime-whisper"})
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    (started,) = driven.happen(fx.SpeechStarted(100))
    assert isinstance(started, server.InputAudioBufferSpeechStarted)
    (delta,) = driven.machine.on_input(live)
    assert isinstance(delta, server.InputAudioTranscriptionDelta)
    assert delta.item_id == started.item_id
    assert delta.delta == "what"


def test_the_grammar_objects_to_words_of_nothing() -> None:
    driven = Driven()
    error = server.InputAudioTranscriptionDelta(event_id="e", item_id="none", delta="x")
    with pytest.raises(IllegalSequenceError):
        driven.reader.read(error)


# --- sessions that write down what they hear and give no answers ----------------------------------


def test_a_transcription_session_is_shown_without_answers() -> None:
    driven = Driven(type="transcription")
    (created,) = driven.machine.open()
    assert isinstance(created, server.SessionCreated)
    session = created.model_dump()["session"]
    assert session["type"] == "transcription"
    assert session["object"] == "realtime.transcription_session"
    assert set(session["audio"]) == {"input"}
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert not {"instructions", "tools", "output_modalities", "model"} & set(session)
    asked = {"model": "gpt-transcribe", "language": "en"}
    audio = {"input": {"transcription": asked, "turn_detection": None}}
    change = {"type": "session.update", "session": {"type": "transcription", "audio": audio}}
    (updated,) = sent(driven.send(change))
    assert updated["session"]["audio"]["input"]["transcription"] == asked
    assert updated["session"]["audio"]["input"]["turn_detection"] is None


def test_a_transcription_session_writes_turns_down_and_answers_none() -> None:
    driven = Driven(type="transcription")
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    seen = driven.happen(fx.SpeechStarted(100)) + driven.happen(fx.SpeechStopped(900, (7,)))
    (commit,) = [one for one in seen if isinstance(one, fx.Commit)]
    seen += words(driven, commit.item_id)
    assert types(seen) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{WORDS}.delta",
        f"{WORDS}.completed",
    ]
    assert driven.runs == []
    refused = driven.send({"type": "response.create", "event_id": "mine"})
    assert error_codes(refused) == ["invalid_value"]
    assert not driven.machine.answers_turns()


@pytest.mark.parametrize(
    ("here", "asked"), [("realtime", "transcription"), ("transcription", "realtime")]
)
def test_a_sessions_type_does_not_change(here: Any, asked: str) -> None:
    refused = Driven(type=here).send({"type": "session.update", "session": {"type": asked}})
    assert error_codes(refused) == ["invalid_value"]


def test_the_words_of_a_deleted_item_are_not_told_of_another_that_takes_its_id() -> None:
    driven = asking({"model": "whisper-1"})
    item_id = turn(driven)
    driven.send({"type": "conversation.item.delete", "item_id": item_id})
    again = {"id": item_id, "type": "message", "role": "user", "content": []}
    driven.send({"type": "conversation.item.create", "item": again})
    assert words(driven, item_id) == []
