"""A conversation that outgrows the context keeps what was said as words, where it has words."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from live_talk import FakeClock, Talk
from scripted import (
    AUDIO,
    FIRST_LETTER,
    SayingTranscriber,
    ScriptedEngine,
    pcm,
    scripted_parts,
    woven,
)

from aqaa.server.protocol import server_events as server

TURNS = 40
SENTENCES = ["my cat is called tom", *["so"] * (TURNS - 2), "what is my cat called"]
SECONDS = 4.0  # of each turn
GROUPS = 30  # of each answer, 3.6 s
MAX_TOKENS = 200
# A turn and its answer take about 340 ids: this holds eight of them, spoken.
BUDGET = 8 * 340
CONTEXT = BUDGET + MAX_TOKENS


INPUT = {"turn_detection": None, "transcription": {"model": "x"}}


def remembers(prompt: Sequence[int]) -> list[int]:
    """The answer of a model that knows what is written in its prompt."""
    written = "".join(chr(token) for token in prompt if FIRST_LETTER <= token < AUDIO)
    return woven("tom" if "called tom" in written else "hm", GROUPS)


async def converse(
    transcriber: SayingTranscriber | None, **settings: object
) -> tuple[ScriptedEngine, str]:
    """All turns; the engine with what it was asked, and the last answer's transcript."""
    clock, engine = FakeClock(), ScriptedEngine(remembers)
    parts = scripted_parts(
        engine,
        clock=clock,
        transcriber=transcriber,
        context=CONTEXT,
        max_tokens=MAX_TOKENS,
        speculation=False,
    )
    talk = Talk(parts, clock)
    await talk.send(
        "session.update",
        session={"audio": {"input": INPUT}} | settings,
    )
    for number in range(1, TURNS + 1):
        await talk.append(pcm(SECONDS, loud=True))
        await talk.send("input_audio_buffer.commit")
        await talk.send("response.create")
        done = await talk.until("response.done", number)
        if transcriber is not None:
            await talk.until("conversation.item.input_audio_transcription.completed", number)
        clock.now += 10.0  # the answer has been heard to its end
        await asyncio.sleep(0)
    assert isinstance(done, server.ResponseDone)
    assert done.response.status == "completed"
    transcript = done.model_dump()["response"]["output"][0]["content"][0]["transcript"]
    await talk.close()
    return engine, transcript


async def test_forty_spoken_turns_in_a_context_that_holds_eight() -> None:
    engine, answer = await converse(SayingTranscriber(SENTENCES))
    assert answer == "tom", "the first turn's sound is long gone; its words are not"
    sizes = [len(prompt) for prompt in engine.prompts]
    assert len(sizes) == TURNS
    assert max(sizes) <= BUDGET
    spoken = [sum(token >= AUDIO for token in prompt) for prompt in engine.prompts]
    assert max(spoken) == max(spoken[:8]), "never more of it spoken than of the first eight turns"
    assert spoken[-1] >= 2 * spoken[0], "the newest turns are kept as sound"


@pytest.mark.parametrize("transcriber", [None, SayingTranscriber([""] * TURNS)], ids=["no", "deaf"])
async def test_without_words_the_first_turn_is_forgotten(
    transcriber: SayingTranscriber | None,
) -> None:
    engine, answer = await converse(transcriber)
    assert answer == "hm"
    assert max(len(prompt) for prompt in engine.prompts) <= BUDGET


async def test_a_client_may_keep_less_than_there_is_room_for() -> None:
    limits = {"post_instructions": BUDGET // 4}
    asked = {"type": "retention_ratio", "retention_ratio": 0.5, "token_limits": limits}
    engine, answer = await converse(SayingTranscriber(SENTENCES), truncation=asked)
    sizes = [len(prompt) for prompt in engine.prompts]
    assert BUDGET // 8 < max(sizes) <= BUDGET // 4 + 16, "and the marks that an answer begins with"
    assert answer == "hm", "what was said first is out of the room that the client left"


async def test_where_nothing_may_be_cut_an_answer_fails_that_has_no_room() -> None:
    clock, engine = FakeClock(), ScriptedEngine(remembers)
    parts = scripted_parts(
        engine, clock=clock, context=CONTEXT, max_tokens=MAX_TOKENS, speculation=False
    )
    talk = Talk(parts, clock)
    await talk.send("session.update", session={"audio": {"input": INPUT}, "truncation": "disabled"})
    failed: list[server.ResponseDone] = []
    for number in range(1, TURNS + 1):
        await talk.append(pcm(SECONDS, loud=True))
        await talk.send("input_audio_buffer.commit")
        await talk.send("response.create")
        done = await talk.until("response.done", number)
        assert isinstance(done, server.ResponseDone)
        if done.response.status == "failed":
            failed.append(done)
            break
        clock.now += 10.0
        await asyncio.sleep(0)
    assert len(engine.prompts) >= 8, "the context holds eight turns"
    details = failed[0].response.status_details
    assert details is not None
    assert details.error is not None
    assert details.error.code == "context_length_exceeded"
    assert all(len(after) > len(before) for before, after in pairwise(engine.prompts))
    await talk.send("session.update", session={"truncation": "auto"})
    await talk.send("response.create")
    after = await talk.until("response.done", len(engine.prompts) + 2)
    assert isinstance(after, server.ResponseDone)
    assert after.response.status == "completed"
    await talk.close()
