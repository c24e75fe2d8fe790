"""Sound inside items in which nobody speaks: it is told so, and is not answered as a question."""

from __future__ import annotations

import asyncio
import base64
import threading

import pytest
from live_talk import SOON, FakeClock, Talk
from scripted import ScriptedEngine, pcm, scripted_parts

from aqaa.server.compute.model import work_of
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import Json, Response
from aqaa.server.urgency import Kind


def message(*sounds: bytes, text: str = "") -> Json:
    content: list[Json] = [{"type": "input_text", "text": text}] if text else []
    content += [{"type": "input_audio", "audio": base64.b64encode(x).decode()} for x in sounds]
    return {"id": "question", "type": "message", "role": "user", "content": content}


async def answer(talk: Talk) -> Response:
    done = await talk.until("response.done")
    assert isinstance(done, server.ResponseDone)
    return done.response


async def refusal(talk: Talk) -> tuple[str | None, str, str | None]:
    event = await talk.until("error")
    assert isinstance(event, server.ErrorEvent)
    return event.error.code, event.error.message, event.error.param


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (pcm(3.0, loud=False), "nobody speaks in these 3.0 s of sound"),
        (pcm(0.1, loud=True), "0.10 s of sound are too short to hold a word"),
        (b"", "0.00 s of sound are too short to hold a word"),
    ],
    ids=["silence", "a click", "nothing"],
)
async def test_an_item_that_holds_no_question_is_told_so_and_its_answer_fails(
    talk: Talk, engine: ScriptedEngine, sound: bytes, words: str
) -> None:
    await talk.send("conversation.item.create", item=message(sound))
    await talk.send("response.create")
    response = await answer(talk)
    code, said, param = await refusal(talk)
    assert (code, param) == ("no_speech", "item.content")
    assert said.startswith("item question: ")
    assert words in said
    assert response.status == "failed"
    assert response.status_details is not None
    assert response.status_details.error is not None
    assert response.status_details.error.code == "no_speech"
    assert engine.prompts == []


async def test_silence_is_no_question_out_of_band_either(
    talk: Talk, engine: ScriptedEngine
) -> None:
    asked = {"conversation": "none", "input": [message(pcm(1.0, loud=False))]}
    await talk.send("response.create", response=asked)
    assert (await answer(talk)).status == "failed"
    assert engine.prompts == []


async def test_the_text_beside_silence_is_answered(talk: Talk) -> None:
    await talk.send("conversation.item.create", item=message(pcm(1.0, loud=False), text="hi"))
    await talk.send("response.create")
    assert (await answer(talk)).status == "completed"
    assert (await refusal(talk))[0] == "no_speech"


async def test_after_silence_the_next_question_is_answered(talk: Talk) -> None:
    await talk.send("conversation.item.create", item=message(pcm(1.0, loud=False)))
    spoken = {**message(pcm(1.0, loud=True)), "id": "spoken"}
    await talk.send("conversation.item.create", item=spoken)
    await talk.send("response.create")
    assert (await answer(talk)).status == "completed"


async def test_instructions_of_an_answers_own_are_followed_behind_silence(talk: Talk) -> None:
    await talk.send("conversation.item.create", item=message(pcm(1.0, loud=False)))
    await talk.send("response.create", response={"instructions": "Ask them to say it again."})
    assert (await answer(talk)).status == "completed"


async def test_a_turn_that_is_told_again_by_its_words_alone_needs_no_sound(talk: Talk) -> None:
    part = {"type": "input_audio", "audio": "", "transcript": "hi"}
    await talk.send("conversation.item.create", item={**message(), "content": [part]})
    await talk.send("response.create")
    assert (await answer(talk)).status == "completed"
    assert "error" not in talk.types()


async def test_half_a_sample_at_an_items_end_is_nothing(talk: Talk) -> None:
    await talk.send("conversation.item.create", item=message(pcm(1.0, loud=True) + b"\x01"))
    await talk.send("response.create")
    assert (await answer(talk)).status == "completed"
    assert "error" not in talk.types()


async def test_a_client_is_heard_while_its_long_item_waits(talk: Talk) -> None:
    """Nothing came of a delete of the item, nor of a question, while its sound was tokenised."""
    may_go_on = threading.Event()
    executor = talk.parts.services.executor
    busy = asyncio.create_task(executor.run(work_of(may_go_on.wait), Kind.FIRST))
    long = message(pcm(50.0, loud=True))
    try:
        async with asyncio.timeout(SOON):
            await talk.send("conversation.item.create", item=long)
            await talk.send("response.create")
            await talk.send("response.cancel")
            assert (await answer(talk)).status == "cancelled"
        with pytest.raises(TimeoutError):  # no more of it is taken
            async with asyncio.timeout(0.1):
                await talk.send("conversation.item.create", item={**long, "id": "another"})
        async with asyncio.timeout(SOON):
            await talk.send("conversation.item.delete", item_id="question")
            await talk.send("conversation.item.create", item={**long, "id": "another"})
        assert "conversation.item.deleted" in talk.types()
    finally:
        may_go_on.set()
        await busy


async def test_sound_that_is_only_to_be_written_down_need_not_hold_a_question(
    engine: ScriptedEngine,
) -> None:
    clock = FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock, type="transcription")
    await talk.send("conversation.item.create", item=message(pcm(1.0, loud=False)))
    await talk.until("conversation.item.added")
    await talk.becomes(lambda: talk.parts.services.executor.waiting() == 0)
    assert "error" not in talk.types()
    await talk.close()
