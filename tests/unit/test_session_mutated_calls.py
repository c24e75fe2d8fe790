"""A model that calls functions wrongly, through a whole session: what its client gets to see."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from live_talk import FakeClock, Talk
from mutated_calls import HOUSEHOLD, is_legal, mutated
from scripted import CALL_START, EOT, Letters, ScriptedEngine, bundle, scripted_parts

from aqaa.models.errors import CallError
from aqaa.server.dialogue.answer_parser import AnswerParser, AudioGroup, TextDelta
from aqaa.server.dialogue.tools import Calling
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import FunctionCall

TOOLS = [
    {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }
    for tool in HOUSEHOLD
]
GROUP_BYTES = 5760  # 120 ms of pcm16 at 24 kHz


def said_in(ids: list[int]) -> tuple[str, int]:
    """The text and the bytes of sound of an answer that is nothing but these ids."""
    marks = bundle()
    parser = AnswerParser(marks.tokens, Letters(), marks.tools, Calling(HOUSEHOLD, "auto"))
    events: list[object] = []
    with suppress(CallError):
        for token in [*ids, EOT]:
            events += parser.push([token])
            if parser.over:
                break
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text, GROUP_BYTES * sum(isinstance(event, AudioGroup) for event in events)


@pytest.fixture
async def talk(engine: ScriptedEngine) -> AsyncIterator[Talk]:
    clock = FakeClock()
    talk = Talk(scripted_parts(engine, clock=clock), clock)
    await talk.send("session.update", session={"type": "realtime", "tools": TOOLS})
    yield talk
    await talk.close()


async def check(talk: Talk, engine: ScriptedEngine, count: int) -> None:
    rng = random.Random(20261127)
    made = failed = 0
    for _ in range(count):
        ids = mutated(rng)
        engine.answer = lambda prompt, ids=ids: ids
        talk.events.clear()
        await talk.send("response.create")
        done = await talk.until("response.done")
        assert isinstance(done, server.ResponseDone)
        calls = [
            one for one in talk.events if isinstance(one, server.ResponseFunctionCallArgumentsDone)
        ]
        for one in calls:
            assert is_legal(f'{{"name":"{one.name}","arguments":{one.arguments}}}')
        items = [item for item in done.response.output if isinstance(item, FunctionCall)]
        assert [(item.name, item.arguments) for item in items] == [
            (one.name, one.arguments) for one in calls
        ]
        said = "".join(
            one.delta
            for one in talk.events
            if isinstance(one, server.ResponseOutputAudioTranscriptDelta)
        )
        assert not set('{"') & set(said), said
        if CALL_START in ids:  # nothing is said but what stands before the call
            assert (said, len(talk.sound())) == said_in(ids[: ids.index(CALL_START)])
        made += len(calls)
        failed += done.response.status == "failed"
    assert made > count / 10
    assert failed > count / 3
    assert talk.counted("aqaa_tool_calls_total", outcome="whole") == made
    assert talk.counted("aqaa_tool_calls_total", outcome="malformed") == failed


async def test_hundreds_of_mutated_calls_are_never_said_nor_made_by_half(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await check(talk, engine, 300)


@pytest.mark.deep
async def test_ten_thousand_mutated_calls_are_never_said_nor_made_by_half(
    talk: Talk, engine: ScriptedEngine
) -> None:
    await check(talk, engine, 10_000)
