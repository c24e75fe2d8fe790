"""A conversation goes on when its gateway drains, dies or is full: our client, real servers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from host_pauses import HOST_SECONDS
from scripted import AUDIO, EOT, ScriptedEngine, pcm, woven
from scripted_server import Served, serving
from switched import Switch

from aqaa.clients.client import Connection, connect
from aqaa.clients.microphone import converse
from aqaa.clients.turn import SpokenAnswer, speak
from aqaa.models.errors import CapacityError, ConnectionLostError
from aqaa.server.protocol.client_events import ConversationItemCreate, ConversationItemTruncate
from aqaa.server.protocol.client_events import ResponseCreate as Ask
from aqaa.server.protocol.server_events import (
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    SessionCreated,
)
from aqaa.server.protocol.types import InputText, Message

SPEECH = np.frombuffer(pcm(0.6, loud=True), "<i2").astype(np.float32) / 32768
QUIET = {"input": {"turn_detection": None}}


def long_answer(prompt: object) -> list[int]:
    return woven("a rather long answer", 20)


@dataclass
class Two:
    """Two servers behind one address, which points at the first."""

    first: Served
    second: Served
    switch: Switch

    async def drain_first(self) -> None:
        self.switch.to = self.second.port
        self.first.state.drain()

    async def kill_first(self) -> None:
        self.switch.to = self.second.port
        self.switch.cut()


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(serving(ScriptedEngine()))
        second = await stack.enter_async_context(serving(ScriptedEngine(), max_sessions=1))
        switch = await stack.enter_async_context(Switch(first.port))
        yield Two(first, second, switch)


async def typed(server: Connection, text: str) -> None:
    await server.send(
        ConversationItemCreate(item=Message(role="user", content=[InputText(text=text)]))
    )
    await server.send(Ask())


async def until(server: Connection, true: Callable[[object], bool]) -> None:
    async with asyncio.timeout(10):
        async for event in server:
            if true(event):
                return


async def answer_to(server: Connection, text: str) -> str:
    await typed(server, text)
    said = ""
    async with asyncio.timeout(10):
        async for event in server:
            if isinstance(event, SessionCreated):
                said = ""
            elif isinstance(event, ResponseOutputAudioTranscriptDelta):
                said += event.delta
            elif isinstance(event, ResponseDone):
                break
    return said


def letters(prompt: tuple[int, ...]) -> str:
    """What is said in words, and who speaks."""
    return "".join(chr(id) for id in prompt if 32 <= id < AUDIO)


def loudness(turn: tuple[int, ...]) -> list[int]:
    """The ids of what is not silence."""
    return [id for id in turn if id >= AUDIO and (id - AUDIO) % 1024 != 0]


def newest(served: Served) -> tuple[int, ...]:
    return served.engine.prompts[-1]


async def converse_once(server: Connection, wave: np.ndarray) -> SpokenAnswer:
    """Speak, and hear the answer out."""
    answer = await speak(server, wave)
    await asyncio.sleep(answer.seconds)
    return answer


async def undisturbed(*turns: np.ndarray) -> tuple[int, ...]:
    """The prompt of the last of these turns, at one server."""
    async with serving(ScriptedEngine()) as served, connect(served.http) as server:
        for wave in turns:
            await converse_once(server, wave)
        return newest(served)


async def test_after_a_drain_the_model_knows_what_was_said_before(two: Two) -> None:
    async with connect(two.switch.url) as server:
        await converse_once(server, SPEECH)
        await two.drain_first()
        answer = await converse_once(server, SPEECH)
    assert answer.ok
    told, known = newest(two.second), await undisturbed(SPEECH, SPEECH)
    assert letters(told) == letters(known)
    assert loudness(told[: told.index(EOT)]) == loudness(known[: known.index(EOT)])


async def test_an_answer_whose_server_was_killed_comes_again_whole(two: Two) -> None:
    for served in (two.first, two.second):
        served.engine.answer, served.engine.seconds = long_answer, 0.005
    troubles: list[str] = []
    heard = 0

    def on_sound(_: object) -> None:
        nonlocal heard
        heard += 1
        if heard == 3:
            killing.append(asyncio.create_task(two.kill_first()))

    killing: list[asyncio.Task[None]] = []
    async with connect(two.switch.url, on_trouble=troubles.append) as server:
        answer = await speak(server, SPEECH, on_sound=on_sound)
    assert (answer.transcript, answer.status) == ("a rather long answer", "completed")
    assert answer.seconds == pytest.approx(20 * 0.12, abs=0.1)  # once, not once and a half
    assert troubles == ["the connection broke without a goodbye"]
    told, known = newest(two.second), newest(two.first)
    assert letters(told) == letters(known)
    assert loudness(told) == loudness(known)


async def test_what_is_being_said_while_the_server_dies_is_one_turn_at_the_next(two: Two) -> None:
    long = np.tile(SPEECH, 3)
    async with connect(two.switch.url) as server:
        speaking = asyncio.create_task(speak(server, long))
        await asyncio.sleep(0.9)  # of the 1.8 s that are spoken
        await two.kill_first()
        answer: SpokenAnswer = await speaking
    assert answer.ok
    groups = [id for id in newest(two.second) if id >= AUDIO]
    whole = [id for id in await undisturbed(long) if id >= AUDIO]
    assert len(groups) == pytest.approx(len(whole), abs=5)


class Headset(SimpleNamespace):
    """A sound card behind sounddevice's names that hears what a test says."""

    PortAudioError = OSError

    def Stream(self, rate: int, block: int, *, callback: Any, **_: object) -> Headset:
        self.block, self.callback = block, callback
        return self

    def start(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    async def hear(self, wave: np.ndarray) -> None:
        out = np.zeros((self.block, 1), np.float32)
        for at in range(0, wave.size - self.block + 1, self.block):
            self.callback(wave[at : at + self.block, None], out, self.block)
            await asyncio.sleep(0.005)


async def test_aqaa_talk_goes_on_with_another_server(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    headset = Headset(query_devices=lambda kind: {"default_samplerate": 24_000.0})
    monkeypatch.setitem(sys.modules, "sounddevice", headset)
    turn = np.concatenate((SPEECH, np.zeros(24_000, np.float32)))
    words: asyncio.Queue[str] = asyncio.Queue()
    async with connect(two.switch.url) as server:
        talking = asyncio.create_task(converse(server, words.put_nowait))
        await asyncio.sleep(0.1)

        async def heard_back() -> str:
            said = ""
            async with asyncio.timeout(20):
                while not said.endswith("\n"):
                    said += await words.get()
            return said

        await headset.hear(turn)
        assert await heard_back() == "hello there\n"
        await two.drain_first()
        await headset.hear(turn)
        assert await heard_back() == "hello there\n"
        talking.cancel()
    assert "hello there" in letters(newest(two.second))


async def test_settings_and_typed_turns_come_along(two: Two) -> None:
    async with connect(two.switch.url) as server:
        await server.update_session(
            instructions="be brief", audio={**QUIET, "output": {"voice": "amy"}}
        )
        assert await answer_to(server, "first question") == "hello there"
        await two.drain_first()
        assert await answer_to(server, "second question") == "hello there"
    prompt = letters(newest(two.second))
    assert "be brief" in prompt
    assert prompt.index("first question") < prompt.index("hello there")
    assert prompt.index("hello there") < prompt.index("second question")


async def test_of_an_answer_that_was_talked_over_only_what_was_heard_comes_along(two: Two) -> None:
    async with connect(two.switch.url) as server:
        await server.update_session(audio=QUIET)
        await typed(server, "question")
        items: list[str] = []

        def is_over(event: object) -> bool:
            if isinstance(event, ResponseOutputAudioDelta):
                items.append(event.item_id)
            return isinstance(event, ResponseDone)

        await until(server, is_over)
        cut = ConversationItemTruncate(item_id=items[0], audio_end_ms=100)
        await server.send(cut)
        await two.drain_first()
        await answer_to(server, "and then?")
    prompt = letters(newest(two.second))
    assert "hello ther" in prompt  # the ten letters that came before the first sound
    assert "hello there" not in prompt


async def test_a_full_server_is_asked_again_until_it_has_a_place(two: Two) -> None:
    async with connect(two.switch.url) as server:
        assert await answer_to(server, "first question") == "hello there"
        async with connect(two.second.http) as other:
            await until(other, lambda event: isinstance(event, SessionCreated))
            await two.drain_first()
            going_on = asyncio.create_task(answer_to(server, "second question"))
            await asyncio.sleep(0.7)
            assert not going_on.done()
        assert await going_on == "hello there"


async def test_a_server_that_freezes_is_told_of_within_two_seconds_and_then_left(two: Two) -> None:
    troubles: list[tuple[str, float]] = []

    def tell(why: str) -> None:
        troubles.append((why, time.monotonic()))

    async with connect(two.switch.url, on_trouble=tell) as server:
        await converse_once(server, SPEECH)
        two.switch.freeze()
        began = time.monotonic()
        asking = asyncio.create_task(speak(server, SPEECH))
        await asyncio.sleep(2.5)
        two.switch.replace(two.second.port)
        answer = await asking
    assert answer.ok
    words, times = zip(*troubles, strict=True)
    assert words == ("the server gives no sign of life", "the server is there no more")
    assert times[0] - began < 2.0 + HOST_SECONDS
    assert 3.5 < times[1] - began < 6.0


async def test_a_server_that_is_frozen_for_two_seconds_is_not_left(two: Two) -> None:
    troubles: list[str] = []
    async with connect(two.switch.url, on_trouble=troubles.append) as server:
        two.switch.freeze()
        asking = asyncio.create_task(speak(server, SPEECH))
        await asyncio.sleep(2.4)
        two.switch.thaw()
        assert (await asking).ok
    assert troubles == ["the server gives no sign of life"]


async def test_a_server_that_has_much_to_hear_is_not_taken_for_frozen(two: Two) -> None:
    """As one that reads half a minute of sound, sent at once, while it computes."""
    troubles: list[str] = []
    async with connect(two.switch.url, on_trouble=troubles.append) as server:
        two.switch.freeze()
        await server.append(np.zeros(30 * 24_000, np.float32))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await until(server, lambda event: False)
    assert troubles == []


@pytest.mark.parametrize("status", [500, 503])
async def test_a_router_without_servers_is_asked_again_until_it_has_one(
    two: Two, status: int
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()

    async with (
        await asyncio.start_server(refuse, "127.0.0.1", 0) as router,
        connect(two.switch.url) as server,
    ):
        await until(server, lambda event: isinstance(event, SessionCreated))
        two.switch.to = router.sockets[0].getsockname()[1]
        two.switch.cut()
        going_on = asyncio.create_task(answer_to(server, "is anybody there?"))
        await asyncio.sleep(0.5)
        assert not going_on.done()
        two.switch.to = two.second.port
        assert await going_on == "hello there"


async def test_patience_ends(two: Two) -> None:
    async with connect(two.switch.url, patience=0.6) as server:
        await until(server, lambda event: isinstance(event, SessionCreated))
        two.switch.to = None
        two.switch.cut()
        began = time.monotonic()
        with pytest.raises(ConnectionLostError, match="no aqaa server answers"):
            await answer_to(server, "is anybody there?")
    assert time.monotonic() - began < 3


async def test_without_patience_a_conversation_ends_with_its_server(two: Two) -> None:
    async with connect(two.switch.url, patience=0) as server:
        await until(server, lambda event: isinstance(event, SessionCreated))
        await two.kill_first()
        with pytest.raises(ConnectionLostError, match="without a goodbye"):
            await answer_to(server, "is anybody there?")


async def test_whoever_finds_no_place_at_first_is_told_at_once(two: Two) -> None:
    async with connect(two.second.http) as inside, connect(two.second.http) as late:
        await until(inside, lambda event: isinstance(event, SessionCreated))
        with pytest.raises(CapacityError, match="places are taken"):
            await until(late, lambda event: False)
