"""openai-python, unchanged but for its base_url, against scripted models."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripted import pcm
from scripted_server import Served

openai = pytest.importorskip("openai", reason="needs the dev extra's openai client")


@pytest.fixture
async def client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.http}/v1", api_key="none") as client:
        yield client


def question() -> str:
    file = io.BytesIO()
    samples = np.frombuffer(pcm(1.0, loud=True), "<i2")
    soundfile.write(file, samples, 24_000, format="WAV")
    return base64.b64encode(file.getvalue()).decode()


SPOKEN = {
    "role": "user",
    "content": [{"type": "input_audio", "input_audio": {"data": question(), "format": "wav"}}],
}


async def test_realtime_answers_a_committed_question(client: openai.AsyncOpenAI) -> None:
    seen = []
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"turn_detection": None}}}
        )
        audio = base64.b64encode(pcm(1.0, loud=True)).decode()
        await connection.input_audio_buffer.append(audio=audio)
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        async for event in connection:
            seen.append(event)
            if event.type == "response.done":
                break
    assert seen[0].type == "session.created"
    assert seen[-1].response.status == "completed"
    sound = b"".join(base64.b64decode(x.delta) for x in seen if x.type.endswith("audio.delta"))
    assert len(sound) == 6 * 0.12 * 24_000 * 2


@pytest.mark.parametrize("container", ["wav", "flac", "mp3", "opus"])
async def test_a_whole_completion_is_a_file_with_its_transcript(
    client: openai.AsyncOpenAI, container: str, tmp_path: Path
) -> None:
    completion = await client.chat.completions.create(
        model="scripted",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": container},
        messages=[SPOKEN],
    )
    audio = completion.choices[0].message.audio
    assert audio is not None
    assert audio.transcript == "hello there"
    file = tmp_path / f"answer.{container}"  # libsndfile reads no mp3 of its own from memory
    file.write_bytes(base64.b64decode(audio.data))
    samples, rate = soundfile.read(file)
    assert samples.size / rate == pytest.approx(0.72, abs=0.06)  # mp3 pads to its frames


async def test_a_streamed_completion_carries_the_same_sound_as_a_whole_one(
    client: openai.AsyncOpenAI,
) -> None:
    request = {
        "model": "scripted",
        "modalities": ["text", "audio"],
        "audio": {"voice": "joe", "format": "pcm16"},
        "messages": [SPOKEN],
    }
    whole = await client.chat.completions.create(**request)
    stream = await client.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    audio = [delta.audio.model_dump() for delta in deltas if delta.audio]
    sound = b"".join(base64.b64decode(a["data"]) for a in audio if a.get("data"))
    assert sound == base64.b64decode(whole.choices[0].message.audio.data)
    assert "".join(a.get("transcript") or "" for a in audio) == "hello there"
    assert audio[-1]["expires_at"]
    assert audio[0]["id"].startswith("audio_")
    assert [a.get("id") for a in audio[1:]] == [None] * (len(audio) - 1)  # clients join strings
    assert chunks[-1].usage.completion_tokens_details.audio_tokens == 30
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


async def test_a_conversation_goes_on_from_an_answer_that_is_named_by_its_id(
    client: openai.AsyncOpenAI, served: Served
) -> None:
    options = {
        "model": "scripted",
        "modalities": ["text", "audio"],
        "audio": {"voice": "joe", "format": "wav"},
    }
    first = await client.chat.completions.create(**options, messages=[SPOKEN])
    audio = first.choices[0].message.audio
    assert audio is not None
    again = {"role": "assistant", "audio": {"id": audio.id}}
    await client.chat.completions.create(**options, messages=[SPOKEN, again, SPOKEN])
    told = served.engine.prompts[-1]
    given = [token for token in served.engine.answer(()) if token != 3]
    assert any(told[at : at + len(given)] == tuple(given) for at in range(len(told)))


async def test_a_written_question_has_a_written_answer(client: openai.AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(
        model="scripted", messages=[{"role": "user", "content": "hi"}]
    )
    assert completion.choices[0].message.content == "hello there"
    assert completion.choices[0].message.audio is None


async def test_a_model_that_is_not_served_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="it is 'scripted'"):
        await client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "hi"}]
        )


async def test_a_container_that_is_not_made_is_refused_with_those_that_are(
    client: openai.AsyncOpenAI,
) -> None:
    with pytest.raises(openai.BadRequestError, match="ask for one of wav"):
        await client.chat.completions.create(
            model="scripted",
            modalities=["text", "audio"],
            audio={"voice": "joe", "format": "aac"},
            messages=[SPOKEN],
        )
