"""An answer that is spoken over, by OpenAI's own Python clients: nothing changed but the URL.

Those of others are in `tests/e2e` (LiveKit, pipecat) and `test_gateway_agents_js`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from openai import AsyncOpenAI
from scripted import CountingTranscriber, ScriptedEngine, pcm, woven
from scripted_server import Served, serving
from wire_sound import in_real_time

pytestmark = pytest.mark.agents
SOON = 60.0
SPEECH = pcm(0.4, loud=False) + pcm(1.2, loud=True)  # then silence, for as long as it takes
GROUPS = 60  # of an answer: 7.2 s
LISTENED = 2.0  # seconds of an answer that are heard before it is spoken over


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    engine = ScriptedEngine(lambda prompt: woven("hello there", GROUPS))
    async with serving(engine, transcriber=CountingTranscriber()) as running:
        yield running


class Speaker:
    """Speaks, and once more when an answer has been heard for a while."""

    def __init__(self, push: Callable[[bytes], Awaitable[object]]) -> None:
        self._push = push
        self._task = asyncio.create_task(self._speak())
        self._again: asyncio.Task[None] | None = None

    def heard(self) -> None:
        """The answer sounds."""
        if self._again is None:
            self._again = asyncio.create_task(self._speak_again())

    async def _speak(self) -> None:
        async with aclosing(in_real_time(SPEECH)) as pieces:
            async for piece in pieces:
                await self._push(piece)

    async def _speak_again(self) -> None:
        await asyncio.sleep(LISTENED)
        self._task.cancel()
        self._task = asyncio.create_task(self._speak())

    def hush(self) -> None:
        for task in (self._task, self._again):
            if task is not None:
                task.cancel()


async def test_openai_python_truncates_and_retrieves_what_was_heard(served: Served) -> None:
    over: list[Any] = []
    errors: list[Any] = []
    sound = b""
    async with (
        asyncio.timeout(SOON),
        AsyncOpenAI(base_url=f"{served.http}/v1", api_key="unused") as client,
        client.realtime.connect(model="scripted") as connection,
    ):
        speaker = Speaker(
            lambda piece: connection.input_audio_buffer.append(
                audio=base64.b64encode(piece).decode()
            )
        )
        answer = kept = ""
        async for event in connection:
            if event.type == "error":
                errors.append(event.error)
            if event.type == "response.output_audio.delta":
                speaker.heard()
                answer = answer or event.item_id
                sound += base64.b64decode(event.delta) if event.item_id == answer else b""
            if event.type == "input_audio_buffer.speech_started" and answer and not kept:
                await connection.conversation.item.truncate(
                    item_id=answer, content_index=0, audio_end_ms=1000
                )
            if event.type == "conversation.item.truncated" and not kept:
                await connection.conversation.item.retrieve(item_id=answer)
            if event.type == "conversation.item.retrieved":
                kept = event.item.content[0].audio
            if event.type == "response.done":
                over.append(event.response.status)
                if len(over) == 2:
                    break
        speaker.hush()
    assert errors == []
    assert base64.b64decode(kept) == sound[:48_000]
    assert over[-1] == "completed"


async def test_openai_agents_is_interrupted_and_its_history_has_what_was_heard(
    served: Served,
) -> None:
    realtime = pytest.importorskip("agents.realtime", reason="needs openai-agents")
    runner = realtime.RealtimeRunner(realtime.RealtimeAgent(name="anna", instructions="be brief"))
    kinds: list[str] = []
    errors: list[object] = []
    history: list[Any] = []
    config = {"url": f"{served.ws}?model=scripted", "api_key": "unused"}
    async with asyncio.timeout(SOON), await runner.run(model_config=config) as session:
        speaker = Speaker(session.send_audio)
        async for event in session:
            kinds.append(event.type)
            if event.type == "error":
                errors.append(event.error)
            if event.type == "audio":
                speaker.heard()
            if event.type == "history_updated":
                history = event.history
            if event.type == "agent_end" and kinds.count("agent_end") == 2:
                break
        speaker.hush()
    assert errors == []
    assert "audio_interrupted" in kinds
    assert [item.role for item in history] == ["user", "assistant"] * 2
