"""LiveKit agents' own OpenAI-realtime class, with nothing changed but its base_url."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import pytest
from ears import hear, mentions
from livekit import rtc
from livekit.agents.llm import GenerationCreatedEvent, MessageGeneration
from livekit.plugins import openai
from serving import Question
from wire_sound import PIECE, RATE, in_real_time, pcm16, samples

TURN_SECONDS = 60


class Agent:
    """A LiveKit session with an open microphone that can be told to speak a recording."""

    def __init__(self, session: openai.realtime.RealtimeSession) -> None:
        self.session = session
        self.generations: asyncio.Queue[GenerationCreatedEvent] = asyncio.Queue()
        self.speech_started = asyncio.Event()
        self.errors: list[object] = []
        self.deleted_or_cut: list[str] = []
        session.on("generation_created", self.generations.put_nowait)
        session.on("input_speech_started", lambda _: self.speech_started.set())
        session.on("error", self.errors.append)
        self._microphone: asyncio.Task[None] | None = None

    def speak(self, question: Question) -> None:
        self._hush()
        self._microphone = asyncio.create_task(self._push(pcm16(question.path)))

    async def _push(self, pcm: bytes) -> None:
        async with aclosing(in_real_time(pcm)) as pieces:
            async for piece in pieces:
                self.session.push_audio(rtc.AudioFrame(piece, RATE, 1, PIECE))

    def _hush(self) -> None:
        if self._microphone is not None:
            self._microphone.cancel()

    async def answer(self) -> MessageGeneration:
        generation = await self.generations.get()
        async for message in generation.message_stream:
            return message
        raise AssertionError("the generation ended without a message")

    async def close(self) -> None:
        self._hush()
        await self.session.aclose()


@pytest.fixture
async def agent(server: str) -> AsyncIterator[Agent]:
    model = openai.realtime.RealtimeModel(
        model="nano", base_url=f"{server}/v1", api_key="unused", input_audio_transcription=None
    )
    agent = Agent(model.session())
    yield agent
    await agent.close()
    with suppress(Exception):
        await model.aclose()


async def sound_of(message: MessageGeneration) -> bytes:
    return b"".join([bytes(frame.data) async for frame in message.audio_stream])


async def text_of(message: MessageGeneration) -> str:
    return "".join([str(text) async for text in message.text_stream])


async def test_a_spoken_turn_is_answered(agent: Agent, question: Question) -> None:
    async with asyncio.timeout(TURN_SECONDS):
        agent.speak(question)
        message = await agent.answer()
        sound, text = await asyncio.gather(sound_of(message), text_of(message))
    assert mentions(text, question.words), text
    heard = hear(samples(sound), RATE)
    assert mentions(heard, question.words), heard
    assert agent.errors == []


async def test_an_interrupted_answer_is_truncated_and_the_next_question_answered(
    agent: Agent, questions: list[Question]
) -> None:
    first, second = questions[0], questions[1]
    async with asyncio.timeout(2 * TURN_SECONDS):
        agent.speak(first)
        message = await agent.answer()
        async for _ in message.audio_stream:
            break  # it has begun to sound
        agent.speech_started.clear()
        agent.speak(second)
        await agent.speech_started.wait()
        agent.session.interrupt()
        agent.session.truncate(
            message_id=message.message_id, modalities=["audio"], audio_end_ms=200
        )
        answer = await agent.answer()
        sound, text = await asyncio.gather(sound_of(answer), text_of(answer))
    assert mentions(text, second.words), text
    heard = hear(samples(sound), RATE)
    assert mentions(heard, second.words), heard
    assert agent.errors == []
