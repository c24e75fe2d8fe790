"""The words of recordings and of transcription sessions, by openai-python and by raw sockets."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import soundfile
from scripted import CountingTranscriber, SayingTranscriber, ScriptedEngine, pcm
from scripted_server import Served, serving
from websockets.asyncio.client import connect

openai = pytest.importorskip("openai", reason="needs the dev extra's openai client")

WORDS = "conversation.item.input_audio_transcription"


@pytest.fixture
async def served(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with serving(engine, transcriber=CountingTranscriber()) as running:
        yield running


@pytest.fixture
async def client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.http}/v1", api_key="none") as client:
        yield client


def recording(*seconds_loud: tuple[float, bool], rate: int = 16_000) -> tuple[str, bytes]:
    sound = b"".join(pcm(seconds, loud=loud, rate=rate) for seconds, loud in seconds_loud)
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(sound, "<i2"), rate, format="WAV")
    return "question.wav", file.getvalue()


SPOKEN = recording((0.6, True), (0.96, False), (0.36, True))  # five words, a pause, three words
SAID = "one two three four five six seven eight"


async def test_json_is_the_text_and_what_it_took(client: openai.AsyncOpenAI) -> None:
    got = await client.audio.transcriptions.create(
        file=SPOKEN, model="gpt-4o-mini-transcribe", include=["logprobs"]
    )
    assert got.text == SAID
    assert got.usage.type == "duration"
    assert got.usage.seconds == 2
    assert "".join(one.token for one in got.logprobs) == SAID
    assert got.logprobs[1].bytes == list(b" two")


async def test_text_is_the_text(client: openai.AsyncOpenAI) -> None:
    got = await client.audio.transcriptions.create(
        file=SPOKEN, model="whisper-1", response_format="text"
    )
    assert got == SAID + "\n"


async def test_verbose_json_has_the_times_of_words_and_segments(
    client: openai.AsyncOpenAI,
) -> None:
    got = await client.audio.transcriptions.create(
        file=SPOKEN,
        model="whisper-1",
        response_format="verbose_json",
        language="en",
        timestamp_granularities=["word", "segment"],
    )
    assert got.text == SAID
    assert got.duration == pytest.approx(1.92)
    assert got.language == "en"
    assert [word.word for word in got.words] == SAID.split()
    assert [round(word.start, 2) for word in got.words[:3]] == [0.0, 0.12, 0.24]
    assert got.words[5].start == pytest.approx(1.56)
    assert [segment.text for segment in got.segments] == [
        "one two three four five",
        "six seven eight",
    ]
    assert got.segments[1].start == pytest.approx(1.56)
    assert got.segments[1].avg_logprob == pytest.approx(-0.5)


async def test_no_word_ends_after_the_recording(engine: ScriptedEngine) -> None:
    """A recogniser's last words may come in the silence that it adds."""
    async with (
        serving(engine, transcriber=SayingTranscriber(["hello"])) as served,
        openai.AsyncOpenAI(base_url=f"{served.http}/v1", api_key="none") as client,
    ):
        got = await client.audio.transcriptions.create(
            file=recording((0.6, True)),
            model="whisper-1",
            response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )
    assert (got.words[0].end, got.segments[0].end) == (got.duration, got.duration) == (0.6, 0.6)


async def test_words_and_segments_come_only_as_asked(client: openai.AsyncOpenAI) -> None:
    got = await client.audio.transcriptions.create(
        file=SPOKEN, model="whisper-1", response_format="verbose_json"
    )
    assert got.words is None
    assert len(got.segments) == 2


async def test_subtitles_are_of_both_kinds(client: openai.AsyncOpenAI) -> None:
    srt = await client.audio.transcriptions.create(
        file=SPOKEN, model="whisper-1", response_format="srt"
    )
    assert srt == (
        "1\n00:00:00,000 --> 00:00:00,600\none two three four five\n\n"
        "2\n00:00:01,560 --> 00:00:01,920\nsix seven eight\n"
    )
    vtt = await client.audio.transcriptions.create(
        file=SPOKEN, model="whisper-1", response_format="vtt"
    )
    assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:00.600\none two")


async def test_a_stream_says_the_words_as_they_are_recognised(client: openai.AsyncOpenAI) -> None:
    long = recording(*[(1.2, True)] * 3)
    events = [
        event
        async for event in await client.audio.transcriptions.create(
            file=long, model="gpt-4o-transcribe", stream=True
        )
    ]
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert len(deltas) > 2
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == "".join(deltas)
    assert len(events[-1].text.split()) == 30


async def test_silence_has_no_words(client: openai.AsyncOpenAI) -> None:
    got = await client.audio.transcriptions.create(file=recording((1.0, False)), model="x")
    assert got.text == ""


async def test_what_cannot_be_transcribed_is_refused(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.transcriptions.create(file=("a.wav", b"no sound"), model="whisper-1")
    assert caught.value.code == "invalid_audio"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.transcriptions.create(
            file=SPOKEN, model="whisper-1", response_format="diarized_json"
        )
    assert caught.value.param == "response_format"


async def test_a_bundle_without_a_transcriber_says_so_everywhere(engine: ScriptedEngine) -> None:
    async with serving(engine) as deaf:
        async with openai.AsyncOpenAI(base_url=f"{deaf.http}/v1", api_key="none") as client:
            with pytest.raises(openai.NotFoundError, match="has no transcriber"):
                await client.audio.transcriptions.create(file=SPOKEN, model="whisper-1")
        async with connect(f"{deaf.ws}?intent=transcription") as socket:
            error = json.loads(await socket.recv())
            assert error["type"] == "error"
            assert error["error"]["code"] == "model_not_found"
            await socket.wait_closed()
            assert socket.close_code == 1008


# --- sessions -------------------------------------------------------------------------------------


async def test_openai_python_gets_the_words_of_a_conversations_turn(
    client: openai.AsyncOpenAI,
) -> None:
    seen: list[Any] = []
    async with client.realtime.connect(model="gpt-realtime") as connection:
        audio = {"transcription": {"model": "whisper-1"}, "turn_detection": None}
        await connection.session.update(session={"type": "realtime", "audio": {"input": audio}})
        sound = base64.b64encode(pcm(1.2, loud=True)).decode()
        await connection.input_audio_buffer.append(audio=sound)
        await connection.input_audio_buffer.commit()
        async for event in connection:
            seen.append(event)
            if event.type == f"{WORDS}.completed":
                break
    kinds = [event.type for event in seen]
    assert kinds.index("conversation.item.added") < kinds.index(f"{WORDS}.delta")
    assert seen[-1].transcript.startswith("one two three")
    assert seen[-1].usage.type == "duration"
    assert seen[1].session.audio.input.transcription.model == "whisper-1"


async def test_a_transcription_session_is_opened_by_its_intent(
    client: openai.AsyncOpenAI, engine: ScriptedEngine
) -> None:
    query = {"intent": "transcription"}
    seen: list[Any] = []
    async with client.realtime.connect(model="any", extra_query=query) as connection:
        created = await connection.recv()
        assert created.session.type == "transcription"
        assert created.session.object == "realtime.transcription_session"
        asked = {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}}}
        await connection.session.update(session={"type": "transcription", "audio": asked})
        updated = await connection.recv()
        assert updated.session.audio.input.transcription.language == "en"
        for sound in (pcm(1.2, loud=True), pcm(1.0, loud=False)):
            await connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
        async for event in connection:
            seen.append(event)
            if event.type == f"{WORDS}.completed":
                break
    assert not [event for event in seen if event.type.startswith("response.")]
    assert seen[-1].transcript.startswith("one two three")
    assert engine.prompts == []


async def test_a_client_secret_may_be_for_transcription_of_what_is_committed(
    client: openai.AsyncOpenAI,
) -> None:
    audio = {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": None}}
    secret = await client.realtime.client_secrets.create(
        session={"type": "transcription", "audio": audio}
    )
    assert secret.session.type == "transcription"
    browser = openai.AsyncOpenAI(base_url=client.base_url, api_key=secret.value)
    async with browser.realtime.connect(model="any") as connection:
        created = await connection.recv()
        assert created.session.type == "transcription"
        assert created.session.audio.input.transcription.model == "whisper-1"
        sound = base64.b64encode(pcm(1.2, loud=True)).decode()
        await connection.input_audio_buffer.append(audio=sound)
        await connection.input_audio_buffer.commit()
        async for event in connection:
            if event.type == f"{WORDS}.completed":
                break
    assert event.transcript.startswith("one two three")


async def test_an_intent_that_there_is_not_is_refused(served: Served) -> None:
    async with connect(f"{served.ws}?intent=translation") as socket:
        assert json.loads(await socket.recv())["error"]["code"] == "invalid_value"
