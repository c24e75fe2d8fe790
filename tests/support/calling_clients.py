"""Other people's clients in a spoken conversation with a function, nothing changed but the URL.

All ask for the user's words: LiveKit by itself, the others as their users are told to.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc
from livekit.agents import llm
from livekit.plugins import openai as livekit_openai
from openai import AsyncOpenAI
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    LLMContextFrame,
    TranscriptionFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events as pipecat_events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner
from wire_sound import PIECE, RATE, in_real_time, speak

SECONDS = 90
RESULT = '{"ok":true}'
WORDS = pipecat_events.SessionProperties(
    audio=pipecat_events.AudioConfiguration(
        input=pipecat_events.AudioInput(
            transcription=pipecat_events.InputAudioTranscription(model="whisper-1")
        )
    )
)


@dataclass(frozen=True)
class Place:
    """A server, and what is asked of it.

    Attributes:
        http: its URL.
        question: what is spoken, as pcm16 at 24 kHz.
        tool: the function that it asks for, as the wire declares it.
        answer: what is in the last answer's words.
    """

    http: str
    question: bytes
    tool: dict[str, Any]
    answer: str

    @property
    def ws(self) -> str:
        return self.http.replace("http", "ws", 1) + "/v1/realtime"

    @property
    def name(self) -> str:
        return str(self.tool["name"])


@dataclass
class Seen:
    """What a client has seen.

    Attributes:
        calls: the calls' arguments.
        text: the last answer's words.
        asked: the user's words, as the client shows them.
        sent: the user's words, as they came to the client.
    """

    calls: list[Any] = field(default_factory=list)
    text: str = ""
    asked: str = ""
    sent: str = ""


async def openai_python(place: Place) -> Seen:
    seen, over = Seen(), False
    async with (
        asyncio.timeout(SECONDS),
        AsyncOpenAI(base_url=f"{place.http}/v1", api_key="unused") as client,
        client.realtime.connect(model="any") as connection,
    ):
        settings: Any = {
            "type": "realtime",
            "tools": [place.tool],
            "audio": {"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}},
        }
        await connection.session.update(session=settings)
        speaking = asyncio.create_task(speak(connection, place.question))
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.function_call_arguments.done":
                seen.calls.append(json.loads(event.arguments))
                await connection.conversation.item.create(
                    item={
                        "type": "function_call_output",
                        "call_id": event.call_id,
                        "output": RESULT,
                    }
                )
            elif event.type == "response.done":
                said = [item for item in event.response.output or [] if item.type == "message"]
                over = bool(said and seen.calls)
                if not over:
                    await connection.response.create()
            elif event.type == "response.output_audio_transcript.done":
                seen.text = event.transcript
            elif event.type == "conversation.item.input_audio_transcription.delta":
                seen.sent += event.delta or ""
            elif event.type == "conversation.item.input_audio_transcription.completed":
                seen.asked = event.transcript
            if over and seen.asked:
                break
        speaking.cancel()
    return seen


class Ear(FrameProcessor):
    """Keeps what pipecat's service says; the user's words go upstream, where one more may stand."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self._answer = answer
        self.text = ""
        self.asked = ""
        self.sent = ""
        self.errors: list[str] = []
        self.said = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSTextFrame):
            self.text += frame.text
            if self._answer in self.text:
                self.said.set()
        if isinstance(frame, InterimTranscriptionFrame):
            self.sent += frame.text
        if isinstance(frame, TranscriptionFrame):
            self.asked = frame.text
        if isinstance(frame, ErrorFrame):
            self.errors.append(frame.error)
        await self.push_frame(frame, direction)


async def pipecat(place: Place) -> Seen:
    seen = Seen()

    async def act(params: FunctionCallParams) -> None:
        seen.calls.append(dict(params.arguments))
        await params.result_callback({"ok": True})

    schema = FunctionSchema(
        name=place.name,
        description=place.tool["description"],
        properties=place.tool["parameters"]["properties"],
        required=place.tool["parameters"].get("required", []),
    )
    service = OpenAIRealtimeLLMService(
        api_key="unused",
        base_url=place.ws,
        settings=OpenAIRealtimeLLMService.Settings(model="any", session_properties=WORDS),
    )
    service.register_function(place.name, act)
    context = LLMContext(tools=ToolsSchema(standard_tools=[schema]))
    pair = LLMContextAggregatorPair(context)
    before, ear = Ear(place.answer), Ear(place.answer)
    worker = PipelineWorker(Pipeline([pair.user(), before, service, ear, pair.assistant()]))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        async with asyncio.timeout(SECONDS), aclosing(in_real_time(place.question)) as pieces:
            await worker.queue_frame(LLMContextFrame(context))
            async for piece in pieces:
                await worker.queue_frame(InputAudioRawFrame(piece, RATE, 1))
                if ear.said.is_set() and before.asked:
                    break
    finally:
        await runner.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert before.errors + ear.errors == []
    seen.text, seen.asked, seen.sent = ear.text, before.asked, before.sent
    return seen


async def livekit(place: Place) -> Seen:
    seen = Seen()

    @llm.function_tool(
        raw_schema={key: place.tool[key] for key in ("name", "description", "parameters")}
    )
    async def act(raw_arguments: dict[str, object]) -> str:
        raise AssertionError("its session would call it; here the client does")

    model = livekit_openai.realtime.RealtimeModel(
        model="any", base_url=f"{place.http}/v1", api_key="unused"
    )
    session = model.session()
    generations: asyncio.Queue[llm.GenerationCreatedEvent] = asyncio.Queue()
    errors: list[object] = []
    written = asyncio.Event()

    def keep_sent(event: Any) -> None:
        if event["type"] == "conversation.item.input_audio_transcription.completed":
            seen.sent = event["transcript"]

    def keep_shown(told: llm.InputTranscriptionCompleted) -> None:
        seen.asked = told.transcript
        if told.is_final:
            written.set()

    session.on("generation_created", generations.put_nowait)
    session.on("error", errors.append)
    session.on("openai_server_event_received", keep_sent)
    session.on("input_audio_transcription_completed", keep_shown)
    await session.update_tools([act])

    async def speak() -> None:
        async with aclosing(in_real_time(place.question)) as pieces:
            async for piece in pieces:
                session.push_audio(rtc.AudioFrame(piece, RATE, 1, PIECE))

    speaking = asyncio.create_task(speak())
    async with asyncio.timeout(SECONDS):
        generation = await generations.get()
        made = [one async for one in generation.function_stream]
        seen.calls = [json.loads(one.arguments) for one in made]
        known = session.chat_ctx.copy()
        known.items.append(
            llm.FunctionCallOutput(call_id=made[0].call_id, output=RESULT, is_error=False)
        )
        await session.update_chat_ctx(known)
        answered = await session.generate_reply(tool_choice="auto")
        async for message in answered.message_stream:
            seen.text = "".join([str(piece) async for piece in message.text_stream])
            break
        await written.wait()
    speaking.cancel()
    await session.aclose()
    with suppress(Exception):
        await model.aclose()
    assert errors == []
    return seen
