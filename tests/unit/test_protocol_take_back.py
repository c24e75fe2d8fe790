"""A turn that ended too early and goes on: what the client is told, and what the model is asked."""

from __future__ import annotations

import base64

from driven_machine import HEARD_MS, Driven, error_codes, types

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output

SECOND = base64.b64encode(bytes(48_000)).decode()  # 1 s of pcm16 at 24 kHz
CHUNK = bytes(5760)  # 120 ms of it
RESUMED = fx.SpeechResumed(100)
WHOLE = fx.SpeechStopped(2900, (7, 8))


def half_a_turn(driven: Driven, *, sound: bool = True) -> fx.StartRun:
    """The user pauses, and an answer starts."""
    detection = {"type": "semantic_vad", "eagerness": "high"}
    driven.send({"type": "session.update", "session": input_with(turn_detection=detection)})
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    driven.happen(fx.SpeechStarted(100))
    driven.happen(fx.SpeechStopped(900, (7,)))
    run = driven.runs[-1]
    if sound:
        driven.happen(fx.RunText(run.response_id, "word ", 1, 0))
        driven.happen(fx.RunSound(run.response_id, CHUNK, 5))
    return run


def input_with(**settings: object) -> dict[str, object]:
    return {"type": "realtime", "audio": {"input": settings}}


def deleted(outputs: list[Output]) -> list[str]:
    return [one.item_id for one in outputs if isinstance(one, server.ConversationItemDeleted)]


def test_the_answer_to_a_part_is_interrupted_as_any_answer_is() -> None:
    driven = Driven()
    run = half_a_turn(driven)
    resumed = driven.happen(RESUMED)
    assert types(resumed) == [
        "input_audio_buffer.speech_started",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    assert fx.StopRun(run.response_id) in resumed
    assert fx.CutItem(run.item_id, HEARD_MS, interrupted=True) in resumed


def test_the_whole_turn_takes_the_place_of_its_part_and_of_the_answer_to_it() -> None:
    driven = Driven()
    run = half_a_turn(driven)
    (part,) = [one for one in driven.reader.order if one != run.item_id]
    driven.happen(RESUMED)
    stopped = driven.happen(WHOLE)
    assert types(stopped) == [
        "input_audio_buffer.speech_stopped",
        "conversation.item.deleted",
        "conversation.item.deleted",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "rate_limits.updated",
    ]
    assert deleted(stopped) == [run.item_id, part]
    (commit,) = [one for one in stopped if isinstance(one, fx.Commit)]
    assert commit.tokens == WHOLE.tokens
    assert driven.reader.order == [commit.item_id]
    assert [item.id for item in driven.runs[-1].items] == [commit.item_id]


def test_what_was_said_before_the_turn_stays() -> None:
    driven = Driven()
    first = half_a_turn(driven)
    driven.happen(fx.RunEnded(first.response_id, "completed"))
    before = list(driven.reader.order)
    second = half_a_turn(driven)
    driven.happen(RESUMED)
    driven.happen(WHOLE)
    assert driven.reader.order[:-1] == before
    assert second.item_id not in driven.reader.order


def test_an_answer_that_was_sent_whole_is_taken_back_too() -> None:
    driven = Driven()
    run = half_a_turn(driven)
    driven.happen(fx.RunEnded(run.response_id, "completed"))
    driven.happen(RESUMED)
    assert run.item_id in deleted(driven.happen(WHOLE))


def test_an_answer_that_had_said_nothing_leaves_no_item() -> None:
    driven = Driven()
    run = half_a_turn(driven, sound=False)
    assert "response.done" in types(driven.happen(RESUMED))
    assert len(deleted(driven.happen(WHOLE))) == 1
    assert run.item_id not in driven.reader.order


def test_until_the_whole_turn_is_there_a_client_may_truncate_what_it_played() -> None:
    driven = Driven()
    run = half_a_turn(driven)
    driven.happen(RESUMED)
    truncate = {
        "type": "conversation.item.truncate",
        "item_id": run.item_id,
        "content_index": 0,
        "audio_end_ms": 60,
    }
    assert types(driven.send(truncate)) == ["conversation.item.truncated"]


def test_an_answer_that_is_prepared_meanwhile_knows_nothing_of_the_part() -> None:
    driven = Driven()
    half_a_turn(driven)
    driven.happen(RESUMED)
    assert driven.machine.next_run().items == ()


def test_a_turn_that_goes_on_and_is_cleared_leaves_the_conversation_as_an_interruption_does() -> (
    None
):
    driven = Driven()
    run = half_a_turn(driven)
    driven.happen(RESUMED)
    order = list(driven.reader.order)
    driven.send({"type": "input_audio_buffer.clear"})
    assert driven.reader.order == order
    assert run.item_id in order
    driven.happen(fx.SpeechStarted(5000))
    assert deleted(driven.happen(fx.SpeechStopped(6000, (9,)))) == []


def test_a_client_that_commits_the_turn_itself_takes_back_the_same() -> None:
    driven = Driven()
    run = half_a_turn(driven)
    driven.happen(RESUMED)
    driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
    committed = driven.send({"type": "input_audio_buffer.commit"})
    assert error_codes(committed) == []
    assert run.item_id in deleted(committed)
    assert len(driven.reader.order) == 1


def test_what_the_client_deletes_meanwhile_is_not_deleted_again() -> None:
    driven = Driven()
    run = half_a_turn(driven)
    driven.happen(RESUMED)
    driven.send({"type": "conversation.item.delete", "item_id": run.item_id})
    assert len(deleted(driven.happen(WHOLE))) == 1


def test_an_item_that_the_client_put_behind_the_part_stays() -> None:
    driven = Driven()
    half_a_turn(driven)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    driven.send({"type": "conversation.item.create", "item": {"id": "mine", **item}})
    driven.happen(RESUMED)
    driven.happen(WHOLE)
    assert driven.reader.order[0] == "mine"
    assert len(driven.reader.order) == 2


def a_part_with_words_goes_on() -> tuple[Driven, str]:
    driven = Driven()
    driven.send(
        {"type": "session.update", "session": input_with(transcription={"model": "whisper-1"})}
    )
    half_a_turn(driven, sound=False)
    (part,) = driven.reader.order
    driven.happen(RESUMED)
    return driven, part


def test_words_of_the_part_that_come_late_are_told_once_and_then_those_of_the_whole() -> None:
    driven, part = a_part_with_words_goes_on()
    driven.happen(WHOLE)
    assert driven.happen(fx.UserWordsEnded(part, "the capital of", (), 0.8)) == []
    (whole,) = driven.reader.order
    said = driven.happen(fx.UserWordsEnded(whole, "the capital of France", (), 2.0))
    assert types(said) == ["conversation.item.input_audio_transcription.completed"]


def words_end_once_the_speaker_goes_on() -> tuple[Driven, str]:
    driven, part = a_part_with_words_goes_on()
    assert driven.happen(fx.UserWords(part, (("the capital", -0.1),))) == []
    assert driven.happen(fx.UserWordsEnded(part, "the capital of", (), 0.8)) == []
    return driven, part


def test_nothing_is_told_of_the_part_that_a_client_would_ask_for_when_it_has_left() -> None:
    """Stock clients retrieve an item when its words are complete."""
    driven, _ = words_end_once_the_speaker_goes_on()
    assert "conversation.item.input_audio_transcription.completed" not in types(
        driven.happen(WHOLE)
    )


def test_if_the_part_stays_its_words_are_told_then() -> None:
    driven, part = words_end_once_the_speaker_goes_on()
    told = driven.send({"type": "input_audio_buffer.clear"})
    assert types(told) == [
        "input_audio_buffer.cleared",
        "conversation.item.input_audio_transcription.delta",
        "conversation.item.input_audio_transcription.completed",
    ]
    assert part in driven.reader.transcribed
