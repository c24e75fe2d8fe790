"""A live session's words, with scripted models: when they are sent, and what does not wait."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import AsyncIterator

import pytest
from live_talk import FakeClock, Talk, speak_and_pause
from scripted import CountingTranscriber, ScriptedEngine, pcm, scripted_parts

from aqaa.server.compute.executor import Executor
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import Json
from aqaa.server.session import transcript_relay

WORDS = "conversation.item.input_audio_transcription"
# 0.1 s of prefix, 1 s of speech: eight of the turn's ten groups are loud throughout.
SAID = "one two three four five six seven eight"


@pytest.fixture
def transcriber() -> CountingTranscriber:
    return CountingTranscriber()


@pytest.fixture
async def talk(transcriber: CountingTranscriber) -> AsyncIterator[Talk]:
    clock = FakeClock()
    parts = scripted_parts(
        ScriptedEngine(), clock=clock, transcriber=transcriber, executor=Executor(3, clock=clock)
    )
    talk = Talk(parts, clock)
    await ask_for_words(talk, {"model": "whisper-1"})
    yield talk
    await talk.close()


async def ask_for_words(talk: Talk, transcription: Json | None, **audio: object) -> None:
    asked = {"audio": {"input": {"transcription": transcription, **audio}}}
    await talk.send("session.update", session=asked)


def completed(event: server.ServerEvent) -> server.InputAudioTranscriptionCompleted:
    assert isinstance(event, server.InputAudioTranscriptionCompleted)
    return event


def words_of(talk: Talk, item_id: str) -> str:
    return "".join(
        event.delta
        for event in talk.events
        if isinstance(event, server.InputAudioTranscriptionDelta) and event.item_id == item_id
    )


async def test_a_turns_words_follow_its_item_and_are_then_complete(talk: Talk) -> None:
    await speak_and_pause(talk)
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert event.transcript.startswith(SAID)
    assert words_of(talk, event.item_id) == event.transcript
    assert event.usage.seconds == pytest.approx(1.2, abs=0.13)
    kinds = talk.types()
    assert kinds.index("conversation.item.added") < kinds.index(f"{WORDS}.delta")
    await talk.until("response.done")
    await talk.send("conversation.item.retrieve", item_id=event.item_id)
    item = await talk.until("conversation.item.retrieved")
    assert item.model_dump()["item"]["content"][0]["transcript"] == event.transcript


async def test_a_commit_of_the_clients_own_gets_the_same_words(talk: Talk) -> None:
    await ask_for_words(talk, {"model": "whisper-1"}, turn_detection=None)
    await speak_and_pause(talk)
    await talk.send("input_audio_buffer.commit")
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert event.transcript.startswith(SAID)
    assert "response.created" not in talk.types()


async def test_sound_that_was_cleared_has_no_words(talk: Talk) -> None:
    await ask_for_words(talk, {"model": "whisper-1"}, turn_detection=None)
    await talk.say(1.0, loud=True)
    await talk.send("input_audio_buffer.clear")
    await talk.say(0.3, loud=True)
    await talk.send("input_audio_buffer.commit")
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert event.transcript in ("one", "one two")


async def test_each_turn_has_its_own_words(talk: Talk) -> None:
    for _ in range(2):
        await speak_and_pause(talk)
    await talk.until("response.done", 2)
    first = completed(await talk.until(f"{WORDS}.completed", 1))
    second = completed(await talk.until(f"{WORDS}.completed", 2))
    assert first.item_id != second.item_id
    assert second.transcript.startswith(SAID)
    assert words_of(talk, second.item_id) == second.transcript


async def test_no_answer_waits_for_words(
    talk: Talk, transcriber: CountingTranscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recogniser stands still; the answer comes all the same, and then the words."""
    goes_on = threading.Event()
    stream = transcriber.stream

    def slow(*, live: bool) -> object:
        transcript = stream(live=live)
        push = transcript.push
        monkeypatch.setattr(transcript, "push", lambda step: push(step) if goes_on.wait(5) else [])
        return transcript

    monkeypatch.setattr(transcriber, "stream", slow)
    await speak_and_pause(talk)
    await talk.until("response.done")
    assert f"{WORDS}.completed" not in talk.types()
    goes_on.set()
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert event.transcript.startswith(SAID)


async def test_a_failing_recogniser_is_said_to_have_failed(
    talk: Talk, transcriber: CountingTranscriber
) -> None:
    transcriber.fault = RuntimeError("no memory")
    await speak_and_pause(talk)
    failed = await talk.until(f"{WORDS}.failed")
    assert isinstance(failed, server.InputAudioTranscriptionFailed)
    await talk.until("response.done")
    assert "error" not in talk.types()


async def test_a_bug_while_words_are_told_ends_the_session_and_is_not_silent(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pieces: object) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(transcript_relay, "text_of", broken)
    await speak_and_pause(talk)
    with pytest.RaisesGroup(ZeroDivisionError):
        await talk.listening


async def test_sound_inside_an_item_is_no_turn_and_gets_no_events(talk: Talk) -> None:
    sound = base64.b64encode(pcm(1.0, loud=True)).decode()
    content = [{"type": "input_audio", "audio": sound}]
    item = {"type": "message", "role": "user", "content": content}
    await talk.send("conversation.item.create", item=item)
    await talk.send("response.create")
    await talk.until("response.done")
    assert [kind for kind in talk.types() if kind.startswith(WORDS)] == []
    await speak_and_pause(talk)
    event = completed(await talk.until(f"{WORDS}.completed"))  # words come in their turns' order
    assert len({x.item_id for x in talk.events if x.type.startswith(WORDS)}) == 1
    assert words_of(talk, event.item_id) == event.transcript


async def test_live_words_are_sent_while_they_are_spoken(talk: Talk) -> None:
    await ask_for_words(talk, {"model": "gpt-realtime-whisper"})
    await talk.say(0.1, loud=False)
    await talk.say(1.0, loud=True)
    delta = await talk.until(f"{WORDS}.delta")
    assert "input_audio_buffer.committed" not in talk.types()
    await talk.say(0.6, loud=False)
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert words_of(talk, event.item_id) == event.transcript
    assert isinstance(delta, server.InputAudioTranscriptionDelta)
    assert delta.item_id == event.item_id


async def test_live_words_of_cleared_sound_are_of_no_later_item(talk: Talk) -> None:
    await ask_for_words(talk, {"model": "gpt-realtime-whisper"}, turn_detection=None)
    await talk.say(1.0, loud=True)
    cleared = await talk.until(f"{WORDS}.delta")
    await talk.send("input_audio_buffer.clear")
    await talk.say(0.5, loud=True)
    await talk.send("input_audio_buffer.commit")
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert isinstance(cleared, server.InputAudioTranscriptionDelta)
    assert cleared.item_id != event.item_id
    assert words_of(talk, event.item_id) == event.transcript
    assert event.transcript.startswith("one two")


async def test_a_commit_and_a_clear_at_once_keep_the_committed_words(talk: Talk) -> None:
    """So ends openai-agents' transcriber."""
    await ask_for_words(talk, {"model": "gpt-realtime-whisper"}, turn_detection=None)
    await talk.say(1.0, loud=True)
    await talk.send("input_audio_buffer.commit")
    await talk.send("input_audio_buffer.clear")
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert event.transcript.startswith(SAID)
    assert words_of(talk, event.item_id) == event.transcript


async def test_a_session_closes_in_the_middle_of_its_words(talk: Talk) -> None:
    await talk.say(1.0, loud=True)
    await talk.close()
    await asyncio.sleep(0)
    assert f"{WORDS}.completed" not in talk.types()


async def test_a_transcription_session_asks_nothing_of_the_engine() -> None:
    clock, engine = FakeClock(), ScriptedEngine()
    parts = scripted_parts(engine, clock=clock, transcriber=CountingTranscriber())
    talk = Talk(parts, clock, "transcription")
    await speak_and_pause(talk)
    event = completed(await talk.until(f"{WORDS}.completed"))
    assert event.transcript.startswith(SAID)
    await speak_and_pause(talk)
    await talk.until(f"{WORDS}.completed", 2)  # all that follows a turn has followed the first
    assert engine.prompts == []
    assert engine.warmed == []
    await talk.close()


async def test_a_transcription_session_has_live_words_too() -> None:
    clock = FakeClock()
    parts = scripted_parts(clock=clock, transcriber=CountingTranscriber())
    talk = Talk(parts, clock, "transcription")
    words = {"transcription": {"model": "gpt-live-transcribe"}}
    update = {"type": "transcription", "audio": {"input": words}}
    await talk.send("session.update", session=update)
    await talk.say(0.1, loud=False)
    await talk.say(1.0, loud=True)
    await talk.until(f"{WORDS}.delta")
    assert "input_audio_buffer.committed" not in talk.types()
    await talk.close()


async def test_the_words_of_a_turn_that_paused_are_complete_before_its_answer_sounds(
    talk: Talk,
) -> None:
    def is_ready_to_end() -> bool:
        """In the pause the last words are recognised, and the answer is begun."""
        turns = talk.conversation._words._transcribing._turns
        recognised = [turn for turn in turns if turn.closing and turn.closing.pieces]
        return bool(recognised and talk.parts.services.engine.prompts)

    await talk.say(1.0, loud=True)
    await talk.say(0.3, loud=False)
    await talk.becomes(is_ready_to_end)
    await talk.say(0.6, loud=False)
    await talk.until(f"{WORDS}.completed")
    await talk.until("response.output_audio.delta")
    kinds = talk.types()
    assert kinds.index(f"{WORDS}.completed") < kinds.index("response.output_audio.delta")
