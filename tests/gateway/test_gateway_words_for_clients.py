"""Other people's clients, unchanged but for a URL, get the user's words from scripted models."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import pytest
from scripted import CountingTranscriber, ScriptedEngine, pcm
from scripted_server import Served, serving
from wire_sound import PIECE, PIECE_SECONDS, RATE, in_real_time

livekit = pytest.importorskip("livekit.plugins.openai", reason="needs LiveKit agents")
pytest.importorskip("pipecat", reason="needs pipecat")
pytest.importorskip("agents.realtime", reason="needs openai-agents")

from agents.realtime import RealtimeAgent, RealtimeRunner  # noqa: E402
from livekit import rtc  # noqa: E402 - after the check that it is there
from livekit.agents import stt as livekit_stt  # noqa: E402
from livekit.agents.utils import http_context  # noqa: E402
from pipecat.frames.frames import (  # noqa: E402
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    TranscriptionFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.services.openai.realtime import events as pipecat_events  # noqa: E402
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService  # noqa: E402
from pipecat.services.openai.stt import OpenAIRealtimeSTTService  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

pytestmark = pytest.mark.agents
SOON = 20.0
SPEECH = pcm(0.4, loud=False) + pcm(1.2, loud=True)  # then silence, for as long as it takes
TURN_PIECES = round(2.0 / PIECE_SECONDS)  # until a turn ends that is told by frames
SAID = "one two three four five six seven eight nine"


@pytest.fixture
async def served(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with serving(engine, transcriber=CountingTranscriber()) as running:
        yield running


async def speak(push: Any) -> None:
    """Hand over the speech as a microphone does, until cancelled."""
    async with aclosing(in_real_time(SPEECH)) as pieces:
        async for piece in pieces:
            result = push(piece)
            if asyncio.iscoroutine(result):
                await result


# --- openai-agents --------------------------------------------------------------------------------


async def test_openai_agents_history_has_both_sides_in_words(served: Served) -> None:
    runner = RealtimeRunner(RealtimeAgent(name="anna", instructions="be brief"))
    model = {"api_key": "unused", "url": f"{served.ws}?model=scripted"}
    said: list[tuple[str, str | None]] = []
    errors: list[object] = []
    async with await runner.run(model_config=model) as session:  # type: ignore[arg-type]
        microphone = asyncio.create_task(speak(session.send_audio))
        async with asyncio.timeout(SOON):
            async for event in session:
                if event.type == "error":
                    errors.append(event.error)
                if event.type == "history_updated":
                    said = [
                        (item.role, getattr(part, "transcript", None))
                        for item in event.history
                        if item.type == "message"
                        for part in item.content
                    ]
                    if len(said) == 2 and all(words for _, words in said):
                        break
        microphone.cancel()
    (user, words), (assistant, answer) = said
    assert (user, assistant) == ("user", "assistant")
    assert str(words).startswith(SAID)
    assert "hello there".startswith(str(answer))
    assert errors == []


# --- LiveKit --------------------------------------------------------------------------------------


async def test_livekits_conversation_shows_the_users_words_once(served: Served) -> None:
    model = livekit.realtime.RealtimeModel(
        model="scripted", base_url=f"{served.http}/v1", api_key="unused"
    )
    session = model.session()
    finals: asyncio.Queue[Any] = asyncio.Queue()
    errors: list[object] = []
    session.on("error", errors.append)
    session.on(
        "input_audio_transcription_completed",
        lambda event: finals.put_nowait(event) if event.is_final else None,
    )
    microphone = asyncio.create_task(
        speak(lambda piece: session.push_audio(rtc.AudioFrame(piece, RATE, 1, PIECE)))
    )
    async with asyncio.timeout(SOON):
        final = await finals.get()
    microphone.cancel()
    (item,) = [one for one in session.chat_ctx.items if one.id == final.item_id]
    await session.aclose()
    with suppress(Exception):
        await model.aclose()
    assert final.transcript.startswith(SAID)
    assert item.text_content == final.transcript
    assert errors == []


async def test_livekits_transcriber_runs_on_a_transcription_session(served: Served) -> None:
    async with http_context.open():
        stt = livekit.STT(
            model="gpt-4o-mini-transcribe",
            base_url=f"{served.http}/v1",
            api_key="unused",
            use_realtime=True,
        )
        stream = stt.stream()
        microphone = asyncio.create_task(
            speak(lambda piece: stream.push_frame(rtc.AudioFrame(piece, RATE, 1, PIECE)))
        )
        async with asyncio.timeout(SOON):
            async for event in stream:
                if event.type == livekit_stt.SpeechEventType.FINAL_TRANSCRIPT:
                    break
        microphone.cancel()
        await stream.aclose()
        await stt.aclose()
    assert event.alternatives[0].text.startswith(SAID)


# --- pipecat --------------------------------------------------------------------------------------


class Ear(FrameProcessor):
    """Keeps transcripts and errors, whichever way they pass."""

    def __init__(self) -> None:
        super().__init__()
        self.words: asyncio.Queue[str] = asyncio.Queue()
        self.errors: list[str] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case TranscriptionFrame():
                self.words.put_nowait(frame.text)
            case ErrorFrame():
                self.errors.append(frame.error)
        await self.push_frame(frame, direction)


async def words_through(ear: Ear, *pipeline: FrameProcessor, vad: bool = False) -> str:
    """The first words in a pipeline that is spoken to; with `vad`, turns are told by frames."""
    worker = PipelineWorker(Pipeline(list(pipeline)))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(0.5)  # pipecat says nothing of being ready
    if vad:
        await worker.queue_frame(VADUserStartedSpeakingFrame())
    pieces = itertools.count(1)

    async def hear(piece: bytes) -> None:
        await worker.queue_frame(InputAudioRawFrame(piece, RATE, 1))
        if vad and next(pieces) == TURN_PIECES:
            await worker.queue_frame(VADUserStoppedSpeakingFrame())

    microphone = asyncio.create_task(speak(hear))
    try:
        async with asyncio.timeout(SOON):
            return await ear.words.get()
    finally:
        microphone.cancel()
        await runner.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_pipecats_conversation_has_the_users_turn_in_words(served: Served) -> None:
    asked = pipecat_events.InputAudioTranscription(model="whisper-1", language="en")
    properties = pipecat_events.SessionProperties(
        audio=pipecat_events.AudioConfiguration(
            input=pipecat_events.AudioInput(transcription=asked)
        )
    )
    service = OpenAIRealtimeLLMService(
        api_key="unused",
        base_url=served.ws,
        settings=OpenAIRealtimeLLMService.Settings(model="scripted", session_properties=properties),
    )
    ear = Ear()  # before the service: its transcripts go upstream
    said = await words_through(ear, ear, service)
    assert said.startswith(SAID)
    assert ear.errors == []


async def test_pipecats_transcriber_runs_on_a_transcription_session(served: Served) -> None:
    service = OpenAIRealtimeSTTService(
        api_key="unused",
        base_url=served.ws,
        settings=OpenAIRealtimeSTTService.Settings(model="gpt-transcribe"),
    )
    ear = Ear()
    said = await words_through(ear, service, ear, vad=True)
    assert said.startswith(SAID)
    assert ear.errors == []
