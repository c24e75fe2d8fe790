"""Other people's clients let a model call their functions, with nothing changed but the URL.

The server's models are scripted: what is asked aloud is answered by a call, and a result in words.
What was asked is told in words, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from agents import function_tool as agents_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from calling_clients import RESULT, SECONDS, Place, Seen, livekit, openai_python, pipecat
from mutated_calls import LEGAL
from scripted import AUDIO, EOT, CountingTranscriber, ScriptedEngine, call, pcm, woven
from scripted_server import Served, serving
from wire_sound import RATE, in_real_time

pytestmark = pytest.mark.agents

QUESTION = pcm(0.2, loud=False) + pcm(0.8, loud=True)
SOUND = "~"  # an audio id
ASKED = "one two three"  # what the scripted recogniser makes of it
ANSWER = "Your timer runs."
TIMER: dict[str, Any] = {
    "type": "function",
    "name": "set_timer",
    "description": "Start a timer.",
    "parameters": {
        "type": "object",
        "properties": {"minutes": {"type": "integer"}},
        "required": ["minutes"],
    },
}


def answer(prompt: Sequence[int]) -> list[int]:
    """A greeting until somebody speaks, for pipecat begins with a question of nobody's."""
    said = "".join(SOUND if token >= AUDIO else chr(token) for token in prompt)
    if "tool\n" in said:
        return woven(ANSWER, 8)
    return [*call(LEGAL[0]), EOT] if f"human\n{SOUND}" in said else woven("Hello.", 3)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    engine = ScriptedEngine(answer=answer)
    async with serving(engine, transcriber=CountingTranscriber()) as running:
        yield running


def result_that_was_read(served: Served) -> str:
    """What the last prompt says that the function gave back."""
    said = "".join(chr(token) for token in served.engine.prompts[-1] if 10 <= token < AUDIO)
    return said.rpartition("tool\n")[2].partition("assistant\n")[0]


@pytest.mark.parametrize("client", [openai_python, pipecat, livekit])
async def test_a_client_hears_the_answer_to_what_its_function_gave_back(
    served: Served, client: Callable[[Place], Awaitable[Seen]]
) -> None:
    seen = await client(Place(served.http, QUESTION, TIMER, ANSWER))
    assert seen.calls
    assert seen.calls == [{"minutes": 5}] * len(seen.calls)
    assert ANSWER in seen.text
    assert seen.asked.startswith(ASKED)
    assert seen.asked == seen.sent
    assert result_that_was_read(served) == RESULT


async def test_openai_agents(served: Served) -> None:
    calls: list[int] = []

    @agents_tool
    def set_timer(minutes: int) -> str:
        """Start a timer."""
        calls.append(minutes)
        return "ok"

    agent = RealtimeAgent(name="kitchen", instructions="Be brief.", tools=[set_timer])
    runner = RealtimeRunner(agent)
    config: Any = {"url": f"{served.ws}?model=scripted", "api_key": "unused"}
    kinds: list[str] = []
    sound, asked = b"", ""
    async with asyncio.timeout(SECONDS), await runner.run(model_config=config) as session:

        async def speak() -> None:
            async with aclosing(in_real_time(QUESTION)) as pieces:
                async for piece in pieces:
                    await session.send_audio(piece)

        speaking = asyncio.create_task(speak())
        async for event in session:
            kinds.append(event.type)
            assert event.type != "error", event
            if event.type == "audio":
                sound += event.audio.data
            if event.type == "raw_model_event" and (
                event.data.type == "input_audio_transcription_completed"
            ):
                asked = event.data.transcript
            if event.type == "audio_end":
                break
        speaking.cancel()
    assert calls == [5]
    assert ("tool_start" in kinds, "tool_end" in kinds) == (True, True)
    assert len(sound) > RATE
    assert result_that_was_read(served) == "ok"
    assert asked.startswith(ASKED)
