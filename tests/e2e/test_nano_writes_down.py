"""nano writes down what is said to it: a recording in every format, and a conversation's turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from serving import Question
from wire_sound import pcm16, speak

from aqaa.recipe.evaluate.judges import word_errors

SECONDS = 90
MOST_WRONG = 0.25  # of the words of few recordings; nano's card has the rate of many
WORDS = "conversation.item.input_audio_transcription"


def wrong(said: dict[str, str]) -> float:
    """The share of wrong words; `said`: what was written down, by what was said."""
    counts = [word_errors(text, heard) for text, heard in said.items()]
    return sum(errors for errors, _ in counts) / sum(words for _, words in counts)


@asynccontextmanager
async def asked(
    server: str, question: Question, transcriber: str
) -> AsyncIterator[AsyncRealtimeConnection]:
    """A conversation into which `question` is spoken, its words wanted of a model of that name."""
    async with (
        asyncio.timeout(SECONDS),
        AsyncOpenAI(base_url=f"{server}/v1", api_key="unused") as client,
        client.realtime.connect(model="nano") as connection,
    ):
        words = {"transcription": {"model": transcriber}}
        await connection.session.update(session={"type": "realtime", "audio": {"input": words}})
        speaking = asyncio.create_task(speak(connection, pcm16(question.path)))
        yield connection
        speaking.cancel()


async def test_recordings_are_written_down_word_by_word(
    server: str, questions: list[Question]
) -> None:
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="unused") as client:
        said = {
            one.text: (await client.audio.transcriptions.create(file=one.path, model="nano")).text
            for one in questions
        }
    assert wrong(said) <= MOST_WRONG, said


async def test_each_format_says_the_same(server: str, question: Question) -> None:
    async with AsyncOpenAI(base_url=f"{server}/v1", api_key="unused") as client:
        ask = client.audio.transcriptions
        said = (await ask.create(file=question.path, model="nano")).text
        text = await ask.create(file=question.path, model="nano", response_format="text")
        whole = await ask.create(
            file=question.path,
            model="nano",
            response_format="verbose_json",
            timestamp_granularities=["word"],
        )
        srt = await ask.create(file=question.path, model="nano", response_format="srt")
        vtt = await ask.create(file=question.path, model="nano", response_format="vtt")
        stream = await ask.create(file=question.path, model="nano", stream=True)
        events = [event async for event in stream]
    assert text == said + "\n"
    assert [word.word for word in whole.words or ()] == said.split()
    times = [time for word in whole.words or () for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[-1] <= whole.duration
    assert srt.startswith("1\n00:00:0")
    assert vtt.startswith("WEBVTT\n\n00:00:0")
    for subtitles in (srt, vtt):
        lines = subtitles.removeprefix("WEBVTT").splitlines()
        spoken = [line for line in lines if line and "-->" not in line and not line.isdigit()]
        assert " ".join(spoken) == said
    assert "".join(one.delta for one in events if one.type == "transcript.text.delta") == said


async def test_a_turns_words_come_while_it_is_spoken_and_it_is_answered(
    server: str, question: Question
) -> None:
    kinds: list[str] = []
    async with asked(server, question, "gpt-realtime-whisper") as connection:
        deltas, said = "", ""
        async for event in connection:
            assert event.type != "error", event
            kinds.append(event.type)
            if event.type == f"{WORDS}.delta":
                deltas += event.delta
            if event.type == f"{WORDS}.completed":
                said = event.transcript
            if {"response.done", f"{WORDS}.completed"} <= set(kinds):
                break
    assert kinds.index(f"{WORDS}.delta") < kinds.index("input_audio_buffer.speech_stopped")
    assert deltas == said
    assert wrong({question.text: said}) <= MOST_WRONG, said


async def test_words_are_complete_before_the_answer_sounds_in_most_turns(
    server: str, questions: list[Question]
) -> None:
    """Which need not wait for them: a busy machine may be late with some."""
    firsts: list[str] = []
    for question in questions:
        async with asked(server, question, "whisper-1") as connection:
            async for event in connection:
                if event.type in (f"{WORDS}.completed", "response.output_audio.delta"):
                    firsts.append(event.type)
                    break
    assert firsts.count(f"{WORDS}.completed") >= len(questions) / 2
