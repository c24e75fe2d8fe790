"""@openai/agents-realtime for JavaScript, unchanged but for its url, against scripted models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from javascript import talk
from scripted import (
    AUDIO,
    EOT,
    CountingTranscriber,
    ScriptedEngine,
    ScriptedJudge,
    call,
    pcm,
    scripted_parts,
    woven,
)
from scripted_server import Served, serving, serving_parts

pytestmark = pytest.mark.agents
SPEECH = pcm(0.4, loud=False) + pcm(1.2, loud=True)
GROUPS = 60  # of an answer: 7.2 s


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    engine = ScriptedEngine(lambda prompt: woven("hello there", GROUPS))
    async with serving(engine, transcriber=CountingTranscriber()) as running:
        yield running


def url(served: Served) -> str:
    return f"{served.ws}?model=scripted"


async def test_a_spoken_turn_is_answered_and_stands_in_the_history_in_words(
    served: Served, tmp_path: Path
) -> None:
    seen = await talk(url(served), tmp_path, turns=1, answers=1, said=SPEECH)
    assert seen["errors"] == []
    assert seen["demoted"] == [], "events that its schema does not accept"
    assert len(seen["sound"]) == GROUPS * 2880 * 2
    said = [(item["role"], item["content"][0]["transcript"]) for item in seen["history"]]
    assert [role for role, _ in said] == ["user", "assistant"]
    assert said[0][1].startswith("one two three")
    assert said[1][1] == "hello there"


async def test_an_answer_that_is_spoken_over_is_cut_and_the_new_turn_answered(
    served: Served, tmp_path: Path
) -> None:
    seen = await talk(url(served), tmp_path, turns=2, answers=2, said=SPEECH)
    assert seen["errors"] == []
    assert seen["demoted"] == []
    assert seen["interrupted"] >= 1
    assert seen["truncated"] >= 1
    assert seen["statuses"][-1] == "completed"
    assert [item["role"] for item in seen["history"]] == ["user", "assistant"] * 2


async def test_a_turn_that_goes_on_is_one_turn_and_nothing_is_asked_for_that_has_left(
    tmp_path: Path,
) -> None:
    """The client asks for each item whose words are complete, and for each that it truncates."""
    engine = ScriptedEngine(lambda prompt: woven("hello there", 8))
    parts = scripted_parts(engine, transcriber=CountingTranscriber(), judge=ScriptedJudge(0.99))
    said = SPEECH + pcm(0.6, loud=False) + pcm(0.8, loud=True)
    async with serving_parts(parts, engine) as served:
        seen = await talk(url(served), tmp_path, turns=1, answers=2, said=said)
        assert parts.services.metrics.registry.get_sample_value("aqaa_reopened_turns_total") == 1
    assert seen["errors"] == []
    assert len(seen["statuses"]) == 2
    assert [item["role"] for item in seen["history"]] == ["user", "assistant"]


def calls_first(prompt: Sequence[int]) -> list[int]:
    """A model that sets a timer, and speaks once it is told what came of it."""
    said = "".join(chr(token) for token in prompt if token < AUDIO)
    wanted = '{"name":"set_timer","arguments":{"minutes":5}}'
    return woven("your timer runs", 8) if "tool\n" in said else [*call(wanted), EOT]


async def test_a_function_is_called_and_what_it_gave_back_is_answered(tmp_path: Path) -> None:
    async with serving(ScriptedEngine(calls_first), transcriber=CountingTranscriber()) as served:
        seen = await talk(url(served), tmp_path, turns=1, answers=2, said=SPEECH)
    assert seen["errors"] == []
    assert seen["demoted"] == []
    assert seen["calls"] == [{"minutes": 5}]
    assert seen["statuses"] == ["completed", "completed"]
    kinds = [item["type"] for item in seen["history"]]
    assert kinds == ["message", "function_call", "message"]
    assert seen["history"][1]["output"] == "ok"
    assert seen["history"][2]["content"][0]["transcript"] == "your timer runs"
