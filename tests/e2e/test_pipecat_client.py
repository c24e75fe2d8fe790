"""Pipecat's own OpenAI-realtime service in a pipeline, with nothing changed but its base_url.

It is the strictest of the clients: an event type that it does not know raises, and nearly any
`error` event ends its session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import pytest
from ears import hear, mentions
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    ProposedUserStartedSpeakingFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner
from serving import Question
from wire_sound import RATE, in_real_time, pcm16, samples

TURN_SECONDS = 60


class Listener(FrameProcessor):
    """The end of the pipeline: keeps what the service pushes downstream."""

    def __init__(self) -> None:
        super().__init__()
        self.sound, self.text = b"", ""
        self.sounding = asyncio.Event()
        self.over = asyncio.Event()
        self.interrupted = asyncio.Event()
        self.errors: list[str] = []

    def begin(self) -> None:
        self.sound, self.text = b"", ""
        self.sounding.clear()
        self.over.clear()
        self.interrupted.clear()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case TTSAudioRawFrame():
                self.sound += frame.audio
                self.sounding.set()
            case TTSTextFrame():
                self.text += frame.text
            case ProposedUserStartedSpeakingFrame():
                self.interrupted.set()
            case LLMFullResponseEndFrame():
                self.over.set()
            case ErrorFrame():
                self.errors.append(frame.error)
        await self.push_frame(frame, direction)


class Bot:
    """A running pipeline whose microphone can be told to speak a recording."""

    def __init__(self, base: str) -> None:
        url = base.replace("http", "ws", 1)
        self.service = OpenAIRealtimeLLMService(
            api_key="unused",
            base_url=f"{url}/v1/realtime",
            settings=OpenAIRealtimeLLMService.Settings(model="nano"),
        )
        self.ear = Listener()
        self.worker = PipelineWorker(Pipeline([self.service, self.ear]))
        self.runner = WorkerRunner(handle_sigint=False)
        self._running: asyncio.Task[None] | None = None
        self._microphone: asyncio.Task[None] | None = None

    def speak(self, question: Question) -> None:
        self._hush()
        self.ear.begin()
        self._microphone = asyncio.create_task(self._push(pcm16(question.path)))

    async def _push(self, pcm: bytes) -> None:
        async with aclosing(in_real_time(pcm)) as pieces:
            async for piece in pieces:
                await self.worker.queue_frame(InputAudioRawFrame(piece, RATE, 1))

    def _hush(self) -> None:
        if self._microphone is not None:
            self._microphone.cancel()

    async def __aenter__(self) -> Bot:
        await self.runner.add_workers(self.worker)
        self._running = asyncio.create_task(self.runner.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hush()
        await self.runner.cancel()
        if self._running is not None:
            with suppress(asyncio.CancelledError):
                await self._running


@pytest.fixture
async def bot(server: str) -> AsyncIterator[Bot]:
    async with Bot(server) as bot:
        yield bot


async def test_a_spoken_turn_is_answered(bot: Bot, question: Question) -> None:
    async with asyncio.timeout(TURN_SECONDS):
        bot.speak(question)
        await bot.ear.sounding.wait()
        await bot.ear.over.wait()
    assert mentions(bot.ear.text, question.words), bot.ear.text
    heard = hear(samples(bot.ear.sound), RATE)
    assert mentions(heard, question.words), heard
    assert bot.ear.errors == []


async def test_an_interrupted_answer_is_truncated_and_the_next_question_answered(
    bot: Bot, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    send = bot.service.send_client_event

    async def noting(event: object) -> None:
        sent.append(getattr(event, "type", ""))
        await send(event)

    monkeypatch.setattr(bot.service, "send_client_event", noting)
    first, second = questions[0], questions[1]
    async with asyncio.timeout(2 * TURN_SECONDS):
        bot.speak(first)
        await bot.ear.sounding.wait()
        bot.speak(second)
        await bot.ear.interrupted.wait()
        bot.ear.begin()
        await bot.ear.sounding.wait()
        await bot.ear.over.wait()
    assert "conversation.item.truncate" in sent
    assert mentions(bot.ear.text, second.words), bot.ear.text
    assert bot.ear.errors == []
