"""Our adapter for voicebench against the real gateway with scripted models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from question_sets import ADAPTER, write_voicebench
from scripted import CountingTranscriber, ScriptedEngine, pcm, woven
from scripted_server import Served, serving
from voicebench.adapters import (
    AdapterError,
    AgentAudio,
    AgentClear,
    AgentEvent,
    SessionInfo,
    Transcript,
    create_adapter,
)
from voicebench.adapters.base import Adapter
from voicebench.clock import RealClock
from voicebench.metrics import analyze
from voicebench.runner import run
from voicebench.scenario import load_scenario, parse_scenario

RATE = 16_000  # not the wire's, so that both ways are resampled
PATIENCE = 20.0  # seconds for anything to happen
ANSWER_GROUPS = 6  # of 120 ms


@asynccontextmanager
async def joined(served: Served) -> AsyncIterator[Adapter]:
    """An adapter in a session."""
    adapter = create_adapter(ADAPTER, {"url": f"{served.ws}?model=scripted"})
    await adapter.start(SessionInfo(RATE, 20, RealClock(), "a test"))
    try:
        yield adapter
    finally:
        await adapter.close()


async def say(adapter: Adapter, seconds: float, *, loud: bool) -> None:
    wave = np.frombuffer(pcm(seconds, loud=loud, rate=RATE), "<i2").astype(np.float32) / 32768
    for begin in range(0, wave.size, RATE // 50):
        await adapter.send_audio(wave[begin : begin + RATE // 50])


async def until(adapter: Adapter, kind: type[AgentEvent], role: str = "") -> list[AgentEvent]:
    """All that was reported up to the first of this kind (and role)."""
    heard: list[AgentEvent] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            heard += adapter.drain()
            if any(type(e) is kind and role in ("", getattr(e, "role", "")) for e in heard):
                return heard
            await asyncio.sleep(0.01)


async def test_the_answer_and_both_sides_words_are_reported() -> None:
    engine = ScriptedEngine(lambda prompt: woven("hello there", ANSWER_GROUPS))
    async with (
        serving(engine, transcriber=CountingTranscriber()) as served,
        joined(served) as adapter,
    ):
        await say(adapter, 0.6, loud=True)
        await say(adapter, 1.0, loud=False)
        heard = await until(adapter, Transcript, "agent")
        if not any(isinstance(e, Transcript) and e.role == "user" for e in heard):
            heard += await until(adapter, Transcript, "user")
    sound = np.concatenate([event.pcm for event in heard if isinstance(event, AgentAudio)])
    assert sound.size == pytest.approx(ANSWER_GROUPS * 0.12 * RATE, rel=0.02)
    assert np.abs(sound).max() > 0.3
    words = {event.role: event.text for event in heard if isinstance(event, Transcript)}
    assert words["agent"] == "hello there"
    assert words["user"].startswith("one two")


async def test_speaking_into_an_answer_drops_what_waits_to_be_played() -> None:
    endless = ScriptedEngine(lambda prompt: woven("hello there", 400), seconds=0.002)
    async with serving(endless) as served, joined(served) as adapter:
        await say(adapter, 0.6, loud=True)
        await say(adapter, 1.0, loud=False)
        await until(adapter, AgentAudio)
        await say(adapter, 0.6, loud=True)
        await until(adapter, AgentClear)  # the first question's was taken with its answer


async def test_a_server_that_is_not_there_is_an_error_of_the_adapter() -> None:
    adapter = create_adapter(ADAPTER, {"url": "ws://127.0.0.1:9/v1/realtime"})
    with pytest.raises(AdapterError, match="no session"):
        await adapter.start(SessionInfo(RATE, 20, RealClock(), "a test"))
    await adapter.close()


async def test_a_session_that_has_ended_is_an_error_of_the_adapter() -> None:
    async with serving(ScriptedEngine()) as served:
        adapter = create_adapter(ADAPTER, {"url": f"{served.ws}?model=scripted"})
        await adapter.start(SessionInfo(RATE, 20, RealClock(), "a test"))
    with pytest.raises(AdapterError, match="closed"):
        await say(adapter, 1.0, loud=False)
    await adapter.close()


async def test_voicebench_runs_a_scenario_and_sees_the_answer() -> None:
    scenario = parse_scenario(
        {
            "name": "one question",
            "tail_ms": 1500,
            "turns": [{"id": "question", "audio": {"synth": "speech", "level_db": -10}}],
        }
    )
    async with serving(ScriptedEngine()) as served:
        adapter = create_adapter(ADAPTER, {"url": f"{served.ws}?model=scripted"})
        record = await run(scenario, adapter)
    assert [window.trigger for window in record.windows] == ["anchor"]
    (turn,) = analyze(record).turns
    assert turn.responded, turn.notes


def test_voicebench_takes_our_set(tmp_path: Path) -> None:
    scenario = load_scenario(write_voicebench(tmp_path))
    assert [turn.expect for turn in scenario.turns] == [
        "respond",
        "stop",
        "respond",
        "ignore",
        *["respond"] * 5,
    ]
    spoken = [turn.audio.render(scenario.sample_rate) for turn in scenario.turns]
    assert all(np.abs(wave).max() > 0.01 for wave in spoken)
