"""What can be retrieved of a conversation's sound, and what it costs."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest
from live_talk import Talk, speak_and_pause
from scripted import ScriptedEngine, pcm, woven

from aqaa.server.audio.wire import AudioFormat, decode
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import Json
from aqaa.server.session import kept_sounds
from aqaa.server.session.kept_sounds import KeptSounds

PCM16 = AudioFormat("pcm16", 24_000)
RETRIEVED = "conversation.item.retrieved"


def item_of(event: server.ServerEvent) -> dict[str, Any]:
    """The item of an event that has one, as it is sent."""
    dumped: dict[str, Any] = event.model_dump(mode="json")
    item: dict[str, Any] = dumped["item"]
    return item


async def retrieved(talk: Talk, item_id: str) -> dict[str, Any]:
    """The first part of an item, as it is retrieved."""
    count = talk.types().count(RETRIEVED) + 1
    await talk.send("conversation.item.retrieve", item_id=item_id)
    item = item_of(await talk.until(RETRIEVED, count))
    assert item["id"] == item_id
    part: dict[str, Any] = item["content"][0]
    return part


async def spoken_turn(talk: Talk, count: int = 1) -> tuple[str, str]:
    """A turn and its answer; their items."""
    await speak_and_pause(talk)
    over = await talk.until("response.done", count)
    assert isinstance(over, server.ResponseDone)
    question = await talk.until("input_audio_buffer.committed", count)
    assert isinstance(question, server.InputAudioBufferCommitted)
    answer = over.response.output[0].id
    assert answer is not None
    return question.item_id, answer


def loud_seconds(sound: bytes, format: AudioFormat = PCM16) -> float:
    """How much of it is as loud as the client's speech."""
    frame = format.rate // 50
    samples = decode(sound, format)
    frames = samples[: samples.size // frame * frame].reshape(-1, frame)
    return float((np.abs(frames).mean(axis=1) > 0.1).sum()) / 50


async def test_a_turn_comes_back_as_the_model_heard_it(talk: Talk) -> None:
    question, _ = await spoken_turn(talk)
    part = await retrieved(talk, question)
    assert part["type"] == "input_audio"
    sound = base64.b64decode(part["audio"])
    # 0.1 s of prefix padding, 1 s of speech, 0.16 s until the pause; none of the silence after it
    assert len(sound) / 48_000 == pytest.approx(1.26, abs=0.1)
    assert loud_seconds(sound) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("format", "heard"),
    [({"type": "audio/pcmu"}, AudioFormat("pcmu", 8_000)), ({"type": "audio/pcm", "rate": 16_000},
      AudioFormat("pcm16", 16_000))],
)  # fmt: skip
async def test_it_comes_in_the_format_in_which_the_client_speaks(
    talk: Talk, format: dict[str, Any], heard: AudioFormat
) -> None:
    question, _ = await spoken_turn(talk)
    await talk.send("session.update", session={"audio": {"input": {"format": format}}})
    sound = base64.b64decode((await retrieved(talk, question))["audio"])
    assert len(sound) / heard.bytes_per_second == pytest.approx(1.26, abs=0.1)
    assert loud_seconds(sound, heard) == pytest.approx(1.0, abs=0.05)


async def test_a_commit_of_the_clients_own_comes_back_too(talk: Talk) -> None:
    await talk.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    await talk.append(pcm(1.2, loud=True))
    await talk.send("input_audio_buffer.commit")
    await talk.becomes(lambda: bool(talk.conversation.kept_items()))
    committed = await talk.until("input_audio_buffer.committed")
    assert isinstance(committed, server.InputAudioBufferCommitted)
    await talk.send("response.create")
    await talk.until("response.done")  # it has been heard by then
    sound = base64.b64decode((await retrieved(talk, committed.item_id))["audio"])
    assert loud_seconds(sound) == pytest.approx(1.2, abs=0.05)


async def test_so_does_sound_that_came_inside_an_item(talk: Talk) -> None:
    brought = base64.b64encode(pcm(1.0, loud=True)).decode()
    content = [{"type": "input_audio", "audio": brought, "transcript": "hello"}]
    item = {"id": "mine", "type": "message", "role": "user", "content": content}
    await talk.send("conversation.item.create", item=item)
    await talk.send("response.create")
    await talk.until("response.done")
    part = await retrieved(talk, "mine")
    assert part["transcript"] == "hello"
    assert loud_seconds(base64.b64decode(part["audio"])) == pytest.approx(1.0, abs=0.05)


async def test_an_answer_comes_back_as_it_was_sent(talk: Talk) -> None:
    _, answer = await spoken_turn(talk)
    part = await retrieved(talk, answer)
    assert part["type"] == "output_audio"
    assert part["transcript"] == "hello there"
    assert base64.b64decode(part["audio"]) == talk.sound()


async def test_an_answer_that_was_cut_has_what_was_heard(
    talk: Talk, engine: ScriptedEngine
) -> None:
    engine.answer = lambda prompt: woven("a long answer that is cut", 40)
    _, answer = await spoken_turn(talk)
    await talk.send(
        "conversation.item.truncate", item_id=answer, content_index=0, audio_end_ms=1500
    )
    sound = base64.b64decode((await retrieved(talk, answer))["audio"])
    assert sound == talk.sound()[: 1500 * 48]
    await talk.send("conversation.item.truncate", item_id=answer, content_index=0, audio_end_ms=0)
    assert "audio" not in await retrieved(talk, answer)


async def test_an_item_without_sound_comes_back_without_it(talk: Talk) -> None:
    text = [{"type": "input_text", "text": "hello"}]
    await talk.send(
        "conversation.item.create",
        item={"id": "mine", "type": "message", "role": "user", "content": text},
    )
    assert await retrieved(talk, "mine") == text[0]


async def test_the_oldest_give_way_whole(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    question, answer = await spoken_turn(talk)
    monkeypatch.setattr(talk.conversation._sounds, "_most", len(talk.sound()) + 50_000)
    another, _ = await spoken_turn(talk, 2)
    assert "audio" not in await retrieved(talk, question)
    assert "audio" not in await retrieved(talk, answer)
    assert "audio" in await retrieved(talk, another)


async def test_one_who_does_not_read_gets_no_sound_and_is_not_closed_for_it(talk: Talk) -> None:
    _, answer = await spoken_turn(talk)
    size = len(base64.b64encode(talk.sound()))
    talk.outlet.left = 2 * size - 100  # it may take half
    assert "audio" not in await retrieved(talk, answer)
    talk.outlet.left = 2 * size + 100
    assert "audio" in await retrieved(talk, answer)


@pytest.mark.parametrize(
    "again",
    [
        None,
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    ],
    ids=["gone", "a call has its id", "a text has its id"],
)
async def test_an_item_that_leaves_meanwhile_is_not_found(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, again: Json | None
) -> None:
    question, _ = await spoken_turn(talk)
    begun, goes_on = asyncio.Event(), asyncio.Event()
    run = talk.parts.services.executor.run

    async def slow(*args: Any) -> Any:
        begun.set()
        await goes_on.wait()
        return await run(*args)

    monkeypatch.setattr(talk.parts.services.executor, "run", slow)
    await talk.send("conversation.item.retrieve", item_id=question, event_id="asked")
    await begun.wait()
    await talk.send("conversation.item.delete", item_id=question)
    if again:
        await talk.send("conversation.item.create", item={"id": question, **again})
    goes_on.set()
    error = await talk.until("error")
    assert isinstance(error, server.ErrorEvent)
    assert (error.error.code, error.error.event_id) == ("item_retrieve_invalid_item_id", "asked")
    assert RETRIEVED not in talk.types()


async def test_who_retrieves_without_end_is_not_read_on(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    question, _ = await spoken_turn(talk)
    goes_on = asyncio.Event()
    run = talk.parts.services.executor.run

    async def slow(*args: Any) -> Any:
        await goes_on.wait()
        return await run(*args)

    monkeypatch.setattr(talk.parts.services.executor, "run", slow)
    for _ in range(kept_sounds.WAITING + 1):  # one is being fetched
        await talk.send("conversation.item.retrieve", item_id=question)
        await asyncio.sleep(0)
    one_more = asyncio.create_task(talk.send("conversation.item.retrieve", item_id=question))
    await asyncio.sleep(0.01)
    assert not one_more.done()
    goes_on.set()
    await one_more
    await talk.until(RETRIEVED, kept_sounds.WAITING + 2)


def test_no_more_is_kept_than_may_be_whatever_grows() -> None:
    sounds = KeptSounds(1000)
    sounds.begin("first", PCM16)
    sounds.begin("second", PCM16)
    sounds.add("first", [bytes(400)])
    sounds.add("second", [bytes(400), bytes(100)])
    assert sounds.kept() == {"first", "second"}
    sounds.add("first", [bytes(200)])  # the oldest gives way, though it is the one that grows
    assert sounds.kept() == {"second"}
    sounds.add("first", [bytes(200)])
    assert sounds.get("first") is None
    sounds.add("second", [bytes(501)])
    assert sounds.kept() == set()
    sounds.begin("third", PCM16)
    sounds.add("third", [bytes(1000)])
    assert sounds.kept() == {"third"}
