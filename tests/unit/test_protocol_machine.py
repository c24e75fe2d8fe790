"""The exact order of events of the turns that clients rely on, and the codes of refusals."""

from __future__ import annotations

import base64

import pytest
from driven_machine import HEARD_MS, Driven, error_codes, types

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.types import Json, Message, OutputSound, RetrievedMessage

SECOND = base64.b64encode(bytes(48_000)).decode()  # 1 s of pcm16 at 24 kHz
CHUNK = bytes(5760)  # 120 ms of it
HELLO: Json = {
    "type": "conversation.item.create",
    "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
}


def spoken_turn(driven: Driven) -> fx.StartRun:
    """The user speaks, the turn ends, an answer starts."""
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    driven.happen(fx.SpeechStarted(100))
    driven.happen(fx.SpeechStopped(900, (7,)))
    return driven.runs[-1]


def say(driven: Driven, run: fx.StartRun, chunks: int = 1) -> None:
    for index in range(chunks):
        driven.happen(fx.RunText(run.response_id, f"word{index} ", 1, index * 120))
        driven.happen(fx.RunSound(run.response_id, CHUNK, 5))


def cut_for_nothing(driven: Driven) -> fx.StartRun:
    """An answer of 360 ms is spoken into; returns its run."""
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    driven.happen(fx.SpeechStarted(3000))
    return run


def test_an_answer_that_was_cut_for_nothing_goes_on_in_another_item() -> None:
    driven = Driven()
    cut = cut_for_nothing(driven)
    seen = driven.happen(fx.SpeechStopped(3500, (7,), nothing=True))
    assert types(seen) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.cleared",
        "response.created",
        "rate_limits.updated",
        "conversation.item.deleted",
    ]
    run = driven.runs[-1]
    assert (run.resumes, run.heard_ms) == (cut.item_id, HEARD_MS)
    assert run.items == cut.items
    assert seen.index(run) < seen.index(fx.ForgetItem(cut.item_id))
    say(driven, run, chunks=3)
    assert driven.reader.order[1:] == [run.item_id]


def test_an_answer_that_goes_on_may_be_cut_again_and_counts_what_was_heard_of_all_of_it() -> None:
    driven = Driven()
    cut_for_nothing(driven)
    driven.happen(fx.SpeechStopped(3500, (7,), nothing=True))
    say(driven, driven.runs[-1], chunks=3)
    driven.happen(fx.SpeechStarted(6000))
    item = driven.machine.next_run().items[-1]
    assert isinstance(item, Message)
    assert item.content == [OutputSound(transcript="word0 word1 ")]  # 100 ms of each part
    driven.happen(fx.SpeechStopped(6500, (7,), nothing=True))
    assert driven.runs[-1].heard_ms == 2 * HEARD_MS


def test_captions_of_an_answer_that_goes_on_count_from_its_own_sound() -> None:
    driven = Driven()
    driven.send({"type": "session.update", "session": {"aqaa": {"extensions": ["captions"]}}})
    cut_for_nothing(driven)
    driven.happen(fx.SpeechStopped(3500, (7,), nothing=True))
    run = driven.runs[-1]
    told = [
        event.audio_start_ms
        for start in (0, 240)
        for event in driven.happen(fx.RunText(run.response_id, "word ", 1, start))
        if isinstance(event, server.ResponseOutputAudioTranscriptDelta)
    ]
    assert told == [0, 240 - HEARD_MS]


def test_nothing_goes_on_once_something_else_was_said() -> None:
    driven = Driven()
    cut_for_nothing(driven)
    driven.send(HELLO)
    seen = types(driven.happen(fx.SpeechStopped(3500, (7,), nothing=True)))
    assert "input_audio_buffer.committed" in seen
    assert driven.runs[-1].resumes is None


def test_what_interrupts_no_answer_is_a_turn_whatever_it_was() -> None:
    driven = Driven()
    driven.happen(fx.SpeechStarted(100))
    seen = types(driven.happen(fx.SpeechStopped(900, (7,), nothing=True)))
    assert "input_audio_buffer.committed" in seen


def test_a_session_begins_with_its_whole_configuration() -> None:
    driven = Driven()
    (created,) = driven.machine.open()
    assert isinstance(created, server.SessionCreated)
    sent = created.model_dump()["session"]
    assert sent["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24000}
    assert sent["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
    assert sent["audio"]["output"]["voice"] == "joe"


def test_a_voice_turn_has_the_order_of_the_openai_service() -> None:
    driven = Driven()
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    seen = driven.happen(fx.SpeechStarted(100)) + driven.happen(fx.SpeechStopped(900, (7,)))
    run = driven.runs[-1]
    seen += driven.happen(fx.RunText(run.response_id, "hello", 1, 0))
    seen += driven.happen(fx.RunSound(run.response_id, CHUNK, 5))
    seen += driven.happen(fx.RunEnded(run.response_id, "completed"))
    assert types(seen) == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "rate_limits.updated",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_audio_transcript.delta",
        "response.output_audio.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]


def test_the_item_of_the_speech_is_known_from_its_first_sound_on() -> None:
    driven = Driven()
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    (started,) = driven.happen(fx.SpeechStarted(100))
    ended = driven.happen(fx.SpeechStopped(900, (7,)))
    committed = next(o for o in ended if isinstance(o, server.InputAudioBufferCommitted))
    assert isinstance(started, server.InputAudioBufferSpeechStarted)
    assert committed.item_id == started.item_id


def test_speech_during_an_answer_cancels_it_and_cuts_it_where_it_was_heard() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    seen = driven.happen(fx.SpeechStarted(2000))
    assert types(seen)[0] == "input_audio_buffer.speech_started"
    assert isinstance(seen[1], fx.StopRun)
    done = next(o for o in seen if isinstance(o, server.ResponseDone)).response
    assert done.status == "cancelled"
    assert done.status_details is not None
    assert done.status_details.reason == "turn_detected"
    assert done.output[0].status == "incomplete"
    assert fx.CutItem(run.item_id, HEARD_MS, interrupted=True) in seen


def test_an_item_that_takes_the_id_of_a_deleted_answer_is_no_answer() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    driven.send({"type": "conversation.item.delete", "item_id": run.item_id})
    content = [{"type": "input_text", "text": "What is it?"}]
    again = {"id": run.item_id, "type": "message", "role": "user", "content": content}
    driven.send({"type": "conversation.item.create", "item": again})
    cut = {"type": "conversation.item.truncate", "item_id": run.item_id, "audio_end_ms": 0}
    assert error_codes(driven.send(cut)) == ["invalid_value"]
    driven.send({"type": "response.create"})
    kept = driven.runs[-1].items[-1]
    assert isinstance(kept, Message)
    assert (kept.role, kept.status) == ("user", "completed")


def test_no_item_is_called_root_which_is_the_place_before_all() -> None:
    item = {"id": "root", "type": "message", "role": "user", "content": []}
    seen = Driven().send({"type": "conversation.item.create", "item": item})
    assert error_codes(seen) == ["item_create_duplicate_item_id"]


def test_a_cut_item_keeps_only_the_text_that_was_heard() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    driven.send({"type": "conversation.item.truncate", "item_id": run.item_id, "audio_end_ms": 200})
    asked = {"type": "conversation.item.retrieve", "item_id": run.item_id, "event_id": "mine"}
    fetched, kept = driven.send(asked)
    assert fetched == fx.FetchSound(run.item_id, "mine", None)
    assert isinstance(kept, server.ConversationItemRetrieved)
    assert isinstance(kept.item, RetrievedMessage)
    assert [part.model_dump() for part in kept.item.content] == [
        {"type": "output_audio", "transcript": "word0 word1 ", "audio": driven.kept_sound}
    ]


def test_speech_after_an_answer_was_sent_whole_still_cuts_what_was_not_played() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    assert fx.CutItem(run.item_id, HEARD_MS, interrupted=True) in driven.happen(
        fx.SpeechStarted(2000)
    )


def test_an_answer_that_is_complete_and_not_yet_sent_can_be_cancelled() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    driven.waiting.add(run.item_id)
    other = driven.send({"type": "response.cancel", "response_id": "resp_of_another"})
    assert types(other) == ["error"]
    named = {"type": "response.cancel", "response_id": run.response_id}
    for cancel in ({"type": "response.cancel"}, named):
        assert driven.send(cancel) == [fx.CutItem(run.item_id, HEARD_MS, interrupted=True)]


def test_an_answer_that_is_sent_can_not_be_cancelled() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=3)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    assert types(driven.send({"type": "response.cancel"})) == ["error"]


def test_speech_that_may_not_interrupt_is_answered_when_the_answer_is_over() -> None:
    driven = Driven()
    detection = {"type": "server_vad", "interrupt_response": False}
    driven.send(
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": detection}}}}
    )
    first = spoken_turn(driven)
    driven.happen(fx.SpeechStarted(2000))
    assert "response.created" not in types(driven.happen(fx.SpeechStopped(3000, (7,))))
    ended = driven.happen(fx.RunEnded(first.response_id, "completed"))
    assert types(ended)[:2] == ["response.done", "response.created"]


def test_an_answer_that_is_cancelled_before_it_says_anything_has_no_output() -> None:
    driven = Driven()
    driven.send(HELLO)
    driven.send({"type": "response.create"})
    seen = driven.send({"type": "response.cancel"})
    assert types(seen) == ["response.done"]
    done = next(o for o in seen if isinstance(o, server.ResponseDone)).response
    assert (done.status, done.output) == ("cancelled", [])


def test_an_out_of_band_answer_leaves_the_conversation_alone() -> None:
    driven = Driven()
    driven.send(HELLO)
    options = {"conversation": "none", "metadata": {"topic": "x"}, "output_modalities": ["text"]}
    driven.send({"type": "response.create", "response": options})
    run = driven.runs[-1]
    seen = driven.happen(fx.RunText(run.response_id, "aside", 1, 0))
    seen += driven.happen(fx.RunEnded(run.response_id, "completed"))
    assert types(seen) == [
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    done = next(o for o in seen if isinstance(o, server.ResponseDone)).response
    assert (done.conversation_id, done.metadata) == (None, {"topic": "x"})
    assert len(driven.reader.order) == 1


def test_out_of_band_answers_run_beside_the_conversations_own() -> None:
    driven = Driven()
    driven.send({"type": "response.create"})
    seen = driven.send({"type": "response.create", "response": {"conversation": "none"}})
    assert error_codes(seen) == []
    assert len(driven.runs) == 2


def test_a_failed_run_says_so_in_its_response_and_the_session_goes_on() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run)
    seen = driven.happen(fx.RunEnded(run.response_id, "failed", "engine_died"))
    done = next(o for o in seen if isinstance(o, server.ResponseDone)).response
    assert done.status == "failed"
    assert done.status_details is not None
    assert done.status_details.error is not None
    assert done.status_details.error.code == "engine_died"
    assert "error" not in types(seen)  # strict clients end a session over an error event
    assert error_codes(driven.send({"type": "response.create"})) == []


def test_usage_counts_what_was_given_and_what_was_made() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    driven.happen(fx.RunStarted(run.response_id, 7, 40, 2, 20))
    say(driven, run, chunks=2)
    seen = driven.happen(fx.RunEnded(run.response_id, "completed"))
    usage = next(o for o in seen if isinstance(o, server.ResponseDone)).response.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (47, 12, 59)
    assert usage.input_token_details.cached_tokens == 22
    assert usage.input_token_details.cached_tokens_details.audio_tokens == 20
    assert usage.output_token_details.audio_tokens == 10


def test_sound_of_a_device_at_44100_hz_is_counted_exactly() -> None:
    driven = Driven()
    format = {"type": "audio/pcm", "rate": 44_100}
    audio = {"input": {"format": format, "turn_detection": None}, "output": {"format": format}}
    driven.send({"type": "session.update", "session": {"audio": audio}})
    driven.send({"type": "response.create"})
    run = driven.runs[-1]
    minute = 60 * 44_100 * 2
    driven.happen(fx.RunSound(run.response_id, bytes(minute), 2500))
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    cut = {"type": "conversation.item.truncate", "item_id": run.item_id, "audio_end_ms": 60_000}
    assert error_codes(driven.send(cut)) == []
    too_far = driven.send(cut | {"audio_end_ms": 62_001})
    assert error_codes(too_far) == ["invalid_value"]


def test_nothing_is_said_after_silence_before_the_first_answer() -> None:
    assert Driven().happen(fx.IdleTimedOut(0, 6000, (7,))) == []


def test_silence_longer_than_the_idle_timeout_prompts_an_answer() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    seen = driven.happen(fx.IdleTimedOut(0, 6000, (7,)))
    assert types(seen)[:2] == [
        "input_audio_buffer.timeout_triggered",
        "input_audio_buffer.committed",
    ]
    assert "response.created" in types(seen)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "response.cancel"}, "response_cancel_not_active"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
        ({"type": "input_audio_buffer.append", "audio": "*"}, "invalid_value"),
        (
            {"type": "conversation.item.retrieve", "item_id": "x"},
            "item_retrieve_invalid_item_id",
        ),
        ({"type": "conversation.item.delete", "item_id": "x"}, "item_delete_invalid_item_id"),
        (
            {"type": "conversation.item.truncate", "item_id": "x", "audio_end_ms": 1},
            "item_truncate_invalid_item_id",
        ),
        (
            {"type": "session.update", "session": {"audio": {"output": {"voice": "nobody"}}}},
            "invalid_value",
        ),
        ({"type": "session.update", "session": {"type": "transcription"}}, "invalid_value"),
    ],
)
def test_a_refusal_carries_its_code_and_the_id_of_the_event_refused(
    message: Json, code: str
) -> None:
    seen = Driven().send({**message, "event_id": "mine"})
    assert error_codes(seen) == [code]
    assert isinstance(seen[0], server.ErrorEvent)
    assert seen[0].error.event_id == "mine"


def test_a_second_answer_to_the_conversation_is_refused_while_one_runs() -> None:
    driven = Driven()
    driven.send({"type": "response.create"})
    seen = driven.send({"type": "response.create"})
    assert error_codes(seen) == ["conversation_already_has_active_response"]


@pytest.mark.parametrize(("asked", "got"), [(240, 240), (300, 240)])
def test_a_truncation_slightly_past_the_end_is_clamped(asked: int, got: int) -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run, chunks=2)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    seen = driven.send(
        {"type": "conversation.item.truncate", "item_id": run.item_id, "audio_end_ms": asked}
    )
    truncated = next(o for o in seen if isinstance(o, server.ConversationItemTruncated))
    assert truncated.audio_end_ms == got


def test_a_truncation_far_past_the_end_is_an_error() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    say(driven, run)
    seen = driven.send(
        {"type": "conversation.item.truncate", "item_id": run.item_id, "audio_end_ms": 9100}
    )
    assert error_codes(seen) == ["invalid_value"]


def test_the_voice_is_frozen_once_the_session_has_spoken() -> None:
    driven = Driven()
    change: Json = {"type": "session.update", "session": {"audio": {"output": {"voice": "amy"}}}}
    assert error_codes(driven.send(change)) == []
    say(driven, spoken_turn(driven))
    change["session"]["audio"]["output"]["voice"] = "joe"
    assert error_codes(driven.send(change)) == ["cannot_update_voice"]


def test_a_well_known_name_of_another_service_means_one_of_our_voices() -> None:
    driven = Driven()
    driven.send({"type": "session.update", "session": {"audio": {"output": {"voice": "alloy"}}}})
    assert driven.machine.session.audio.output.voice == "joe"


def test_an_update_changes_what_it_names_and_nothing_else() -> None:
    driven = Driven()
    detection = {"threshold": 0.7}
    seen = driven.send(
        {"type": "session.update", "session": {"audio": {"input": {"turn_detection": detection}}}}
    )
    updated = next(o for o in seen if isinstance(o, server.SessionUpdated)).session
    assert updated.audio.input.turn_detection is not None
    assert updated.audio.input.turn_detection.model_dump() == {
        "type": "server_vad",
        "threshold": 0.7,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        "create_response": True,
        "interrupt_response": True,
        "idle_timeout_ms": None,
    }


def test_transcript_deltas_carry_their_time_only_for_those_who_asked() -> None:
    driven = Driven()
    run = spoken_turn(driven)
    (*_, plain) = driven.happen(fx.RunText(run.response_id, "hi", 1, 120))
    assert isinstance(plain, server.ResponseOutputAudioTranscriptDelta)
    assert "audio_start_ms" not in plain.model_dump()
    driven.send({"type": "session.update", "session": {"aqaa": {"extensions": ["captions"]}}})
    (timed,) = driven.happen(fx.RunText(run.response_id, "there", 1, 240))
    assert isinstance(timed, server.ResponseOutputAudioTranscriptDelta)
    assert timed.model_dump()["audio_start_ms"] == 240


def test_an_unknown_event_names_itself_in_the_error() -> None:
    with pytest.raises(ProtocolError, match=r"session\.destroy") as caught:
        client.parse_client_event({"type": "session.destroy", "event_id": "mine"})
    assert (caught.value.code, caught.value.event_id) == ("invalid_value", "mine")


def test_a_missing_field_is_named_by_its_path() -> None:
    with pytest.raises(ProtocolError) as caught:
        client.parse_client_event({"type": "conversation.item.create", "item": {"type": "message"}})
    assert caught.value.code == "missing_required_parameter"
    assert "role" in (caught.value.param or "")
