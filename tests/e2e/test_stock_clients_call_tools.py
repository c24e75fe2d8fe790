"""Other people's clients let a model call their functions, with nothing changed but the URL.

The server's models are scripted: what is asked aloud is answered by a call, and a result in words.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import pytest
from agents import function_tool as agents_tool
from agents.realtime import RealtimeAgent, RealtimeRunner
from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai as livekit_openai
from mutated_calls import LEGAL
from openai import AsyncOpenAI
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner
from scripted import AUDIO, EOT, ScriptedEngine, call, pcm, woven
from scripted_server import Served, serving
from wire_sound import PIECE, RATE, in_real_time

pytestmark = pytest.mark.agents

SECONDS = 60
QUESTION = pcm(0.2, loud=False) + pcm(0.8, loud=True)
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
    said = "".join(chr(token) for token in prompt if token < AUDIO)
    return woven(ANSWER, 8) if "tool\n" in said else [*call(LEGAL[0]), EOT]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(ScriptedEngine(answer=answer)) as running:
        yield running


def result_that_was_read(served: Served) -> str:
    """What the last prompt says that the function gave back."""
    said = "".join(chr(token) for token in served.engine.prompts[-1] if 10 <= token < AUDIO)
    return said.rpartition("tool\n")[2].partition("assistant\n")[0]


async def test_openai_python(served: Served) -> None:
    said, calls = "", []
    async with (
        asyncio.timeout(SECONDS),
        AsyncOpenAI(base_url=f"{served.http}/v1", api_key="unused") as client,
        client.realtime.connect(model="scripted") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "tools": [TIMER]})
        for sound in (QUESTION, pcm(0.8, loud=False)):
            audio = base64.b64encode(sound).decode()
            await connection.input_audio_buffer.append(audio=audio)
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.function_call_arguments.done":
                calls.append(json.loads(event.arguments))
                await connection.conversation.item.create(
                    item={
                        "type": "function_call_output",
                        "call_id": event.call_id,
                        "output": '{"ok": true}',
                    }
                )
            elif event.type == "response.done" and not said:
                if event.response.output[0].type != "function_call":
                    break
                await connection.response.create()
            elif event.type == "response.output_audio_transcript.done":
                said = event.transcript
                break
    assert (calls, said) == ([{"minutes": 5}], ANSWER)
    assert result_that_was_read(served) == '{"ok":true}'


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
    sound = b""
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
            if event.type == "audio_end":
                break
        speaking.cancel()
    assert calls == [5]
    assert ("tool_start" in kinds, "tool_end" in kinds) == (True, True)
    assert len(sound) > RATE
    assert result_that_was_read(served) == "ok"


class Ear(FrameProcessor):
    """Keeps what pipecat's service says."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.errors: list[str] = []
        self.said = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            self.text += frame.text
            if ANSWER in self.text:
                self.said.set()
        if isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        await self.push_frame(frame, direction)


async def test_pipecat(served: Served) -> None:
    calls: list[Any] = []

    async def set_timer(params: FunctionCallParams) -> None:
        calls.append(dict(params.arguments))
        await params.result_callback({"ok": True})

    schema = FunctionSchema(
        name="set_timer",
        description="Start a timer.",
        properties=TIMER["parameters"]["properties"],
        required=["minutes"],
    )
    service = OpenAIRealtimeLLMService(
        api_key="unused",
        base_url=served.ws,
        settings=OpenAIRealtimeLLMService.Settings(model="scripted"),
    )
    service.register_function("set_timer", set_timer)
    context = LLMContext(tools=ToolsSchema(standard_tools=[schema]))
    pair = LLMContextAggregatorPair(context)
    ear = Ear()
    worker = PipelineWorker(Pipeline([pair.user(), service, ear, pair.assistant()]))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(SECONDS), aclosing(in_real_time(QUESTION)) as pieces:
            await worker.queue_frame(LLMContextFrame(context))
            async for piece in pieces:
                await worker.queue_frame(InputAudioRawFrame(piece, RATE, 1))
                if ear.said.is_set():
                    break
    finally:
        await runner.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert calls == [{"minutes": 5}] * len(calls)
    assert calls
    assert ear.errors == []
    assert result_that_was_read(served) == '{"ok":true}'


async def test_livekit_agents(served: Served) -> None:
    @llm.function_tool
    async def set_timer(minutes: int) -> str:
        """Start a timer."""
        raise AssertionError("its session would call it; here the test does")

    model = livekit_openai.realtime.RealtimeModel(
        model="scripted",
        base_url=f"{served.http}/v1",
        api_key="unused",
        input_audio_transcription=None,
    )
    session = model.session()
    generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
    errors: list[object] = []
    session.on("generation_created", generations.put_nowait)
    session.on("error", errors.append)
    await session.update_tools([set_timer])

    async def speak() -> None:
        async with aclosing(in_real_time(QUESTION)) as pieces:
            async for piece in pieces:
                session.push_audio(rtc.AudioFrame(piece, RATE, 1, PIECE))

    speaking = asyncio.create_task(speak())
    async with asyncio.timeout(SECONDS):
        generation = await generations.get()
        made = [one async for one in generation.function_stream]
        assert [(one.name, json.loads(one.arguments)) for one in made] == [
            ("set_timer", {"minutes": 5})
        ]
        known = session.chat_ctx.copy()
        known.items.append(
            llm.FunctionCallOutput(call_id=made[0].call_id, output="ok", is_error=False)
        )
        await session.update_chat_ctx(known)
        answered = await session.generate_reply(tool_choice="auto")
        text = ""
        async for message in answered.message_stream:
            text = "".join([str(piece) async for piece in message.text_stream])
            break
    speaking.cancel()
    await session.aclose()
    with suppress(Exception):
        await model.aclose()
    assert text == ANSWER
    assert errors == []
    assert result_that_was_read(served) == "ok"
