"""A live session whose user goes on with a turn that had ended: the model reads one turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from live_talk import FakeClock, Talk, speak_and_pause
from scripted import AUDIO, CountingTranscriber, ScriptedEngine, scripted_parts, woven

from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import Json, Response

EAGER: Json = {"type": "semantic_vad", "eagerness": "high"}  # 300 ms of silence
WORDS = "conversation.item.input_audio_transcription"


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(answer=lambda prompt: woven("an answer that takes a while", 40))


@pytest.fixture
async def talk(engine: ScriptedEngine) -> AsyncIterator[Talk]:
    talk = talk_with(engine)
    await ask_for(talk, EAGER)
    yield talk
    await talk.close()


def talk_with(engine: ScriptedEngine) -> Talk:
    clock = FakeClock()
    return Talk(scripted_parts(engine, clock=clock, transcriber=CountingTranscriber()), clock)


async def ask_for(talk: Talk, detection: Json) -> None:
    settings = {"turn_detection": detection, "transcription": {"model": "whisper-1"}}
    await talk.send("session.update", session={"audio": {"input": settings}})


async def say_the_rest(talk: Talk) -> None:
    await talk.say(0.7, loud=True)  # long enough to interrupt an answer
    await talk.say(1.0, loud=False)


async def say_a_part(talk: Talk) -> Response:
    """The turn ends after it; returns the answer that begins."""
    await speak_and_pause(talk, silence=0.4)
    await talk.until("response.output_audio.delta")
    created = await talk.until("response.created")
    assert isinstance(created, server.ResponseCreated)
    return created.response


def loud_groups(prompt: Sequence[int]) -> int:
    """How many groups of the user's speech are in the prompt; those of the answers are quiet."""
    return sum(token - AUDIO > 100 for token in [one for one in prompt if one >= AUDIO][::5])


async def prompt_of_a_turn_that_never_ended() -> tuple[int, ...]:
    engine = ScriptedEngine()
    talk = talk_with(engine)
    await ask_for(talk, {"type": "server_vad", "silence_duration_ms": 800})
    await speak_and_pause(talk, silence=0.4)
    await say_the_rest(talk)
    await talk.until("response.done")
    await talk.close()
    return engine.prompts[-1]


def conversation(talk: Talk) -> list[str]:
    """The items, as the client was told."""
    items: list[str] = []
    for event in talk.events:
        if isinstance(event, server.ConversationItemAdded):
            items.append(event.item.id or "")
        elif isinstance(event, server.ConversationItemDeleted):
            items.remove(event.item_id)
    return items


async def test_the_model_reads_one_turn_as_if_it_had_never_ended(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await say_a_part(talk)
    await say_the_rest(talk)
    await talk.until("response.done", 2)
    assert engine.prompts[-1] == await prompt_of_a_turn_that_never_ended()
    assert talk.counted("aqaa_reopened_turns_total") == 1


async def test_the_answer_to_the_part_stops_and_leaves_with_it(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.seconds = 0.002
    part = await say_a_part(talk)
    await talk.say(0.2, loud=True)
    over = await talk.until("response.done")
    assert isinstance(over, server.ResponseDone)
    assert over.response.id == part.id
    assert over.response.status == "cancelled"
    assert over.response.status_details is not None
    assert over.response.status_details.reason == "turn_detected"
    await talk.becomes(lambda: engine.running == 0)
    engine.seconds = 0
    told = len(talk.events)
    await talk.say(1.0, loud=False)
    whole = await talk.until("response.done", 2)
    assert isinstance(whole, server.ResponseDone)
    later = [x.response_id for x in talk.events[told:] if isinstance(x, server.OfResponse)]
    assert part.id not in later
    answer = whole.response.output[0].id
    assert conversation(talk)[1:] == [answer]
    assert len(conversation(talk)) == 2
    await talk.becomes(lambda: talk.conversation.kept_items() == set(conversation(talk)))


async def test_a_turn_goes_on_as_often_as_its_speaker_does(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await say_a_part(talk)
    await talk.say(0.5, loud=True)
    await talk.say(0.6, loud=False)
    await talk.until("response.created", 2)
    await say_the_rest(talk)
    await talk.until("response.created", 3)
    await talk.conversation.idle()
    assert talk.counted("aqaa_reopened_turns_total") == 2
    assert len(conversation(talk)) == 2
    assert loud_groups(engine.prompts[-1]) >= 15  # of 2 s


async def test_its_item_has_the_words_of_the_whole_turn(talk: Talk) -> None:
    await say_a_part(talk)
    await say_the_rest(talk)
    await talk.until("response.done", 2)
    whole = conversation(talk)[0]

    def transcript() -> str:
        said = [
            event.transcript
            for event in talk.events
            if isinstance(event, server.InputAudioTranscriptionCompleted) and event.item_id == whole
        ]
        return said[0] if said else ""

    await talk.becomes(lambda: transcript() != "")
    loud = loud_groups(await prompt_of_a_turn_that_never_ended())
    assert len(transcript().split()) == loud > 10
    assert transcript().startswith("one two three")


async def test_the_answer_that_is_prepared_in_its_last_pause_is_taken(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await say_a_part(talk)
    await say_the_rest(talk)
    await talk.until("response.done", 2)
    assert talk.counted("aqaa_speculations_total", outcome="mismatched") == 0
    assert talk.counted("aqaa_speculations_total", outcome="hit") == 2


async def test_who_speaks_later_than_a_second_begins_a_new_turn(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await say_a_part(talk)
    await talk.say(1.1, loud=False)
    await say_the_rest(talk)
    await talk.until("response.done", 2)
    assert "conversation.item.deleted" not in talk.types()
    assert len(conversation(talk)) == 4


async def test_server_vad_never_takes_back(talk: Talk, engine: ScriptedEngine) -> None:
    await ask_for(talk, {"type": "server_vad", "silence_duration_ms": 300})
    await say_a_part(talk)
    await say_the_rest(talk)
    await talk.until("response.done", 2)
    assert "conversation.item.deleted" not in talk.types()
    assert talk.counted("aqaa_reopened_turns_total") == 0


async def test_what_the_client_deletes_does_not_come_back_with_the_rest(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await say_a_part(talk)
    await talk.send("conversation.item.delete", item_id=conversation(talk)[0])
    await say_the_rest(talk)
    await talk.until("response.done", 2)
    committed = [x for x in talk.events if isinstance(x, server.InputAudioBufferCommitted)]
    assert len(committed) == 2
    assert talk.counted("aqaa_reopened_turns_total") == 0
    assert 5 <= loud_groups(engine.prompts[-1]) <= 7  # 0.7 s


async def test_a_transcription_session_keeps_what_it_wrote_down() -> None:
    clock = FakeClock()
    parts = scripted_parts(ScriptedEngine(), clock=clock, transcriber=CountingTranscriber())
    talk = Talk(parts, clock, "transcription")
    update = {"type": "transcription", "audio": {"input": {"turn_detection": EAGER}}}
    await talk.send("session.update", session=update)
    await speak_and_pause(talk, silence=0.4)
    await say_the_rest(talk)
    await talk.until(f"{WORDS}.completed", 2)
    assert "conversation.item.deleted" not in talk.types()
    await talk.close()
