"""OpenAI's own Python client, with nothing changed but its base_url."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator

import pytest
import soundfile
from ears import hear, mentions
from openai import AsyncOpenAI
from serving import Question
from wire_sound import RATE, pcm16, samples, speak


@pytest.fixture
async def client(server: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="unused") as openai:
        yield openai


async def test_realtime_answers_a_committed_question(
    client: AsyncOpenAI, question: Question
) -> None:
    sound, kinds, transcript = b"", [], ""
    async with asyncio.timeout(60), client.realtime.connect(model="nano") as connection:
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        await connection.input_audio_buffer.append(
            audio=base64.b64encode(pcm16(question.path)).decode()
        )
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.output_audio.delta":
                sound += base64.b64decode(event.delta)
            elif event.type == "response.output_audio_transcript.done":
                transcript = event.transcript
            elif event.type == "response.done":
                assert event.response.status == "completed"
                break
    assert "error" not in kinds
    assert kinds[0] == "session.created"
    assert mentions(transcript, question.words), transcript
    heard = hear(samples(sound), RATE)
    assert mentions(heard, question.words), heard


async def test_realtime_hears_the_end_of_the_turn_by_itself(
    client: AsyncOpenAI, question: Question
) -> None:
    kinds = []
    async with asyncio.timeout(60), client.realtime.connect(model="nano") as connection:
        speaking = asyncio.create_task(speak(connection, pcm16(question.path)))
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                break
        speaking.cancel()
    wanted = [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "response.created",
        "response.output_audio.delta",
        "response.done",
    ]
    assert [kind for kind in dict.fromkeys(kinds) if kind in wanted] == wanted


async def test_chat_completions_answers_a_recording(
    client: AsyncOpenAI, question: Question
) -> None:
    wav = io.BytesIO()
    soundfile.write(wav, samples(pcm16(question.path)), RATE, format="WAV", subtype="PCM_16")
    data = base64.b64encode(wav.getvalue()).decode()
    completion = await client.chat.completions.create(
        model="nano",
        modalities=["text", "audio"],
        audio={"voice": "joe", "format": "wav"},
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
                ],
            }
        ],
    )
    message = completion.choices[0].message
    assert message.audio is not None
    assert mentions(message.audio.transcript, question.words), message.audio.transcript
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(message.audio.data)), dtype="float32")
    heard = hear(wave, rate)
    assert mentions(heard, question.words), heard
    assert completion.choices[0].finish_reason == "stop"


async def test_chat_completions_streams_text_and_sound_in_openais_shape(
    client: AsyncOpenAI, question: Question
) -> None:
    transcript, sound, finish = "", b"", None
    stream = await client.chat.completions.create(
        model="nano",
        modalities=["text", "audio"],
        audio={"voice": "joe", "format": "pcm16"},
        messages=[{"role": "user", "content": question.text}],
        stream=True,
    )
    async for chunk in stream:
        choice = chunk.choices[0]
        if (audio := choice.delta.audio) is not None:
            transcript += audio.transcript or ""
            sound += base64.b64decode(audio.data or "")
        finish = choice.finish_reason or finish
    assert finish == "stop"
    assert mentions(transcript, question.words), transcript
    heard = hear(samples(sound), RATE)
    assert mentions(heard, question.words), heard


async def test_models_lists_nano(client: AsyncOpenAI) -> None:
    assert "nano" in [model.id async for model in client.models.list()]
