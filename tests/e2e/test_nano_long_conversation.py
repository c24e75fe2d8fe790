"""Forty spoken turns to nano, whose context holds about eight: all stay in the prompt, as words.

What a model makes of them is not asked here: nano forgets a name after two other questions, long
before its context is full (its card says so).
`tests/unit/test_session_long_conversation.py` has a model that reads.
"""

from __future__ import annotations

import asyncio
import base64
from itertools import pairwise

from openai import AsyncOpenAI
from openai.types.realtime import RealtimeResponseUsage
from serving import Question
from wire_sound import pcm16

from aqaa.models.bundle import load_bundle, nano_path

TURNS = 40
SECONDS = 600
WORDS = "conversation.item.input_audio_transcription.completed"


async def test_forty_spoken_turns_never_outgrow_the_context(
    server: str, questions: list[Question]
) -> None:
    bundle = load_bundle(nano_path())
    room = bundle.decoder.context - bundle.sampling.max_tokens
    prompts: list[RealtimeResponseUsage] = []
    async with (
        asyncio.timeout(SECONDS),
        AsyncOpenAI(base_url=f"{server}/v1", api_key="unused") as client,
        client.realtime.connect(model="nano") as connection,
    ):
        hearing = {"turn_detection": None, "transcription": {"model": "whisper-1"}}
        await connection.session.update(session={"type": "realtime", "audio": {"input": hearing}})
        for turn in range(TURNS):
            sound = pcm16(questions[turn % 5].path)  # the sixth is answered by a story
            await connection.input_audio_buffer.append(audio=base64.b64encode(sound).decode())
            await connection.input_audio_buffer.commit()
            await connection.response.create()
            due = {WORDS, "response.done"}
            async for event in connection:
                assert event.type != "error", event
                if event.type == "response.done":
                    assert event.response.status == "completed"
                    assert event.response.usage is not None
                    prompts.append(event.response.usage)
                due.discard(event.type)
                if not due:
                    break
    written = [used.input_token_details.text_tokens for used in prompts if used.input_token_details]
    spoken = [used.input_token_details.audio_tokens for used in prompts if used.input_token_details]
    assert max(used.input_tokens or 0 for used in prompts) <= room
    assert all((before or 0) < (after or 0) for before, after in pairwise(written)), "words stay"
    assert max(spoken[20:]) < max(spoken[:20]), "for the oldest sound that has left"
