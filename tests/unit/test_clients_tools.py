"""The functions that our own client offers, and answers by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from mutated_calls import LEGAL
from scripted import AUDIO, EOT, ScriptedEngine, call, pcm, scripted_parts, woven
from scripted_server import serving_parts

from aqaa.clients.client import connect
from aqaa.clients.tools import DONE, MadeCall, Tools, demo, read_tools
from aqaa.clients.turn import SpokenAnswer, speak
from aqaa.models.errors import InputError
from aqaa.server.protocol.server_events import ResponseFunctionCallArgumentsDone

COMMAND = np.frombuffer(pcm(0.8, loud=True), "<i2").astype(np.float32) / 32768
LIGHT = {"type": "function", "name": "set_light", "output": {"error": "broken"}}


def answer(prompt: Sequence[int]) -> list[int]:
    said = "".join(chr(token) for token in prompt if token < AUDIO)
    asked = LEGAL[2] if "set_light(" in said else LEGAL[0]
    return woven("So it is.", 6) if "tool\n" in said else [*call(asked), EOT]


async def spoken_to(tools: Tools, *, calls_functions: bool = True) -> SpokenAnswer:
    engine = ScriptedEngine(answer=answer) if calls_functions else ScriptedEngine()
    async with (
        serving_parts(scripted_parts(engine, tools=calls_functions), engine) as served,
        connect(served.http) as server,
        asyncio.timeout(30),
    ):
        await server.update_session(tools=tools.declared)
        return await speak(server, COMMAND, tools=tools)


def of_the_model(name: str, arguments: str) -> ResponseFunctionCallArgumentsDone:
    return ResponseFunctionCallArgumentsDone(
        event_id="e", response_id="r", item_id="i", output_index=0, call_id="c", name=name,
        arguments=arguments,
    )  # fmt: skip


async def test_a_command_is_called_answered_here_and_confirmed_aloud() -> None:
    calls: list[MadeCall] = []
    turn = await spoken_to(demo(calls.append, pytest.fail))
    assert [str(one) for one in calls] == ['set_timer({"minutes":5}) -> {"ok":true}']
    assert (turn.transcript, turn.status) == ("So it is.", "completed")
    assert turn.audio.size > 0
    assert turn.heard_after is not None


async def test_functions_of_a_file_are_answered_as_it_says(tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text(json.dumps([LIGHT]))
    calls: list[MadeCall] = []
    turn = await spoken_to(read_tools(file, calls.append, pytest.fail))
    assert [(one.name, one.output) for one in calls] == [("set_light", '{"error":"broken"}')]
    assert turn.transcript == "So it is."


async def test_a_model_that_calls_nothing_is_said_to() -> None:
    notes: list[str] = []
    turn = await spoken_to(demo(pytest.fail, notes.append), calls_functions=False)
    assert turn.transcript == "hello there"
    assert notes == ["this model calls no functions"]


async def test_a_timer_says_when_it_is_over() -> None:
    notes: asyncio.Queue[str] = asyncio.Queue()
    tools = demo(lambda made: None, notes.put_nowait)
    tools.replies(of_the_model("set_timer", '{"seconds":0}'))
    assert await asyncio.wait_for(notes.get(), 5) == "the timer is over"


def test_the_clock_tells_hours_and_minutes() -> None:
    calls: list[MadeCall] = []
    demo(calls.append, pytest.fail).replies(of_the_model("get_time", "{}"))
    hours, minutes = json.loads(calls[0].output)["time"].split(":")
    assert (len(hours), len(minutes)) == (2, 2)


def test_what_a_file_does_not_answer_has_worked(tmp_path: Path) -> None:
    file = tmp_path / "tools.json"
    file.write_text('[{"type": "function", "name": "lock_door"}]')
    calls: list[MadeCall] = []
    read_tools(file, calls.append, pytest.fail).replies(of_the_model("lock_door", "{}"))
    assert calls == [MadeCall("lock_door", "{}", DONE)]


@pytest.mark.parametrize("text", ["no JSON", "{}", '[{"type": "mcp"}]', '[{"name": "a b"}]'])
def test_a_file_of_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tools.json"
    file.write_text(text)
    with pytest.raises(InputError, match="list of functions"):
        read_tools(file, pytest.fail, pytest.fail)
    with pytest.raises(InputError, match="cannot read"):
        read_tools(tmp_path / "nothing", pytest.fail, pytest.fail)
