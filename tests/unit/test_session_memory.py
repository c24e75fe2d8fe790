"""What a session remembers: rendered once, off the event loop, and nothing that nobody asks for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from live_talk import FakeClock, Talk
from scripted import AUDIO, Letters, ScriptedEngine, scripted_parts, woven

from aqaa.server.compute.executor import Executor
from aqaa.server.dialogue.prompt import PromptBuilder
from aqaa.server.protocol.types import InputSound, InputText, Json, Message
from aqaa.server.session.memory import Memory


class NotedLetters(Letters):
    """Keeps what it encoded, and in which threads."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.threads: set[int] = set()

    def encode(self, text: str) -> list[int]:
        self.texts.append(text)
        self.threads.add(threading.get_ident())
        return super().encode(text)


class Remembering:
    """A memory whose text codec is watched."""

    def __init__(self) -> None:
        parts = scripted_parts()
        parts.services.executor.close()
        self.letters = NotedLetters()
        self.executor = Executor(1)
        prompts = PromptBuilder.of(parts.bundle, self.letters)
        self.memory = Memory(parts.bundle.tokens, self.letters, prompts, self.executor)
        self.letters.texts.clear()
        self.letters.threads.clear()


@pytest.fixture
async def remembering() -> AsyncIterator[Remembering]:
    remembering = Remembering()
    yield remembering
    remembering.executor.close()


def written(item_id: str, text: str) -> Message:
    return Message(id=item_id, role="user", content=[InputText(text=text)])


async def test_each_item_is_rendered_once_and_never_on_the_event_loop(
    remembering: Remembering,
) -> None:
    memory = remembering.memory
    items = [written("a", "one"), written("b", "two")]
    for _ in range(3):
        await memory.turns(items, "be kind")
    items.append(written("c", "three"))
    turns = await memory.turns(items, "be kind", speaking=[AUDIO] * 5)
    assert len(turns) == 5
    assert remembering.letters.texts == ["\nbe kind", "\none", "\ntwo", "\nthree"]
    assert threading.get_ident() not in remembering.letters.threads


async def test_an_answer_to_speech_does_not_wait_for_a_thread(remembering: Remembering) -> None:
    memory = remembering.memory
    memory.expect("a")
    memory.store("a", [AUDIO] * 5)
    memory.answer("b", woven("an answer", 3), speed=1.0)
    await memory.turns([], "be kind")
    remembering.executor.close()  # from now on it takes no work
    items = [
        Message(id="a", role="user", content=[InputSound()]),
        Message(id="b", role="assistant", content=[]),
    ]
    assert len(await memory.turns(items, "be kind", speaking=[AUDIO] * 5)) == 4


async def test_no_answer_waits_for_its_questions_words(remembering: Remembering) -> None:
    memory = remembering.memory
    memory.expect("a")
    memory.store("a", [AUDIO] * 5)
    memory.words("a", "hello")
    remembering.executor.close()
    item = Message(id="a", role="user", content=[InputSound(transcript="hello")])
    (turn,) = await memory.turns([item], "")
    assert turn.shorter is None


async def test_what_changes_is_rendered_anew(remembering: Remembering) -> None:
    memory = remembering.memory
    ids = woven("one two three four five six", 20)
    memory.answer("a", ids, speed=1.0)
    item = Message(id="a", role="assistant", content=[])
    (whole,) = await memory.turns([item], "")
    memory.cut("a", 600)
    (cut,) = await memory.turns([item], "")
    assert sum(token >= AUDIO for token in cut.ids) == 5 * 5 < sum(t >= AUDIO for t in whole.ids)
    (first,) = await memory.turns([written("b", "x")], "")
    (second,) = await memory.turns([written("b", "y")], "")
    assert first.ids != second.ids


async def test_words_that_are_recognised_later_stand_for_old_speech(
    remembering: Remembering,
) -> None:
    memory = remembering.memory
    memory.expect("a")
    memory.store("a", [AUDIO] * 5)
    item = Message(id="a", role="user", content=[InputSound()])
    before, _ = await memory.turns([item], "", speaking=[AUDIO] * 5)
    memory.words("a", "hello")
    after, _ = await memory.turns([item], "", speaking=[AUDIO] * 5)
    assert before.shorter is None
    assert after.shorter is not None
    assert after.ids == before.ids


async def test_an_item_that_is_deleted_while_it_is_rendered_leaves_nothing(
    remembering: Remembering,
) -> None:
    memory = remembering.memory
    rendering = asyncio.create_task(memory.turns([written("a", "one")], ""))
    await asyncio.sleep(0)
    memory.forget("a")
    await rendering
    assert memory.kept() == set()


async def test_nothing_is_left_of_out_of_band_responses() -> None:
    engine, clock = ScriptedEngine(), FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock)
    item: Json = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hi"}],
    }
    for count in (1, 2, 3):
        response = {"conversation": "none", "input": [item]}
        await talk.send("response.create", response=response)
        await talk.until("response.done", count)
    await talk.conversation.idle()
    assert talk.conversation.kept_items() == set()
    await talk.close()
    assert len(engine.released) == 3 + 1


async def test_an_out_of_band_answer_that_is_cancelled_twice_is_released() -> None:
    """At a cancellation and, a moment later, at the client's leaving."""
    engine, clock = ScriptedEngine(seconds=0.01), FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock)
    await talk.send("response.create", response={"conversation": "none", "input": []})
    await talk.until("response.created")
    await talk.becomes(lambda: engine.running == 1)
    created = next(e for e in talk.events if e.type == "response.created").model_dump()
    await talk.send("response.cancel", response_id=created["response"]["id"])
    await talk.close()
    assert engine.running == 0
    assert f"sess_1/{created['response']['id']}" in engine.released
