"""`aqaa serve` with vLLM as its engine: a spoken question, its answer's sound, a call, a death."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from ears import hear, mentions
from numpy.typing import NDArray
from openai import AsyncOpenAI
from serving import Question, server_process, serving
from vllm_server import READY_WITHIN, engine_core

from aqaa.clients.client import WIRE_RATE, connect
from aqaa.clients.turn import speak
from aqaa.recipe.domain.tools import TOOLS
from aqaa.server.audio.files import read_audio

pytestmark = pytest.mark.vllm

# float32, so that its greedy ids are those of the embedded engine; no compilation
VLLM = {
    "AQAA_ENGINE__ENGINE": "vllm",
    "AQAA_ENGINE__VLLM__DTYPE": "float32",
    "AQAA_ENGINE__VLLM__ENFORCE_EAGER": "true",
    "AQAA_ENGINE__VLLM__CPU_KV_CACHE_GB": "0.25",
}


@pytest.fixture(scope="module")
def vllm_serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its base URL."""
    log = tmp_path_factory.mktemp("vllm") / "log"
    with serving(log, environment=VLLM, ready_within=READY_WITHIN) as base:
        yield base


def ready(base: str) -> bool:
    return httpx.get(f"{base}/health/ready").status_code == 200


async def until_ready(base: str) -> None:
    async with asyncio.timeout(READY_WITHIN):
        while not ready(base):  # noqa: ASYNC110
            await asyncio.sleep(0.5)


def active_sessions(base: str) -> float:
    lines = httpx.get(f"{base}/metrics").text.splitlines()
    return next(float(x.split()[-1]) for x in lines if x.startswith("aqaa_active_sessions"))


async def test_a_spoken_question_is_answered_by_sound(
    vllm_serving: str, question: Question
) -> None:
    async with connect(vllm_serving) as server:
        turn = await speak(server, read_audio(question.path, WIRE_RATE))
    assert turn.status == "completed"
    assert mentions(turn.transcript, question.words), turn.transcript
    heard = hear(turn.audio, WIRE_RATE)
    assert mentions(heard, question.words), f"asked {question.text!r}, heard {heard!r}"


async def called(base: str, said: str, choice: Any) -> tuple[str, Any]:
    """The function that is called for what was written, and its arguments."""
    tools = [tool.declaration() for tool in TOOLS.values()]
    content = [{"type": "input_text", "text": said}]
    async with (
        AsyncOpenAI(base_url=f"{base}/v1", api_key="unused") as client,
        client.realtime.connect(model="nano") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "tools": tools})
        item = {"type": "message", "role": "user", "content": content}
        await connection.conversation.item.create(item=item)
        await connection.response.create(response={"tool_choice": choice})
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.done":
                break
    assert event.response.status == "completed", event
    (call,) = event.response.output
    return call.name, json.loads(call.arguments)


async def test_a_command_is_a_call_and_a_forced_call_is_as_declared(vllm_serving: str) -> None:
    timer = ("set_timer", {"minutes": 5})
    assert await called(vllm_serving, "Set a timer for five minutes.", "auto") == timer
    lock = {"type": "function", "name": "lock_door"}
    name, arguments = await called(vllm_serving, "How are you?", lock)
    assert name == "lock_door"
    assert [type(value) for value in arguments.values()] == [str]
    name, _ = await called(vllm_serving, "How are you?", "required")
    assert name in TOOLS


async def test_an_engine_that_freezes_mid_answer_fails_that_answer_alone_and_the_next_is_answered(
    vllm_serving: str, question: Question
) -> None:
    wave = read_audio(question.path, WIRE_RATE)
    core = engine_core(server_process(vllm_serving).children(recursive=True))

    async with connect(vllm_serving) as server:
        frozen = await speak(server, wave, on_sound=lambda _: core.suspend())
        assert frozen.status == "failed"
        assert not ready(vllm_serving)
        core.resume()
        await until_ready(vllm_serving)
        again = await speak(server, wave)
    assert again.status == "completed"
    assert mentions(again.transcript, question.words), again.transcript


async def test_kill_9_of_the_engine_mid_answer_fails_that_answer_alone_and_the_next_is_answered(
    vllm_serving: str, question: Question
) -> None:
    wave = read_audio(question.path, WIRE_RATE)
    core = engine_core(server_process(vllm_serving).children(recursive=True))

    def kill(_: NDArray[np.float32]) -> None:
        if core.is_running():
            core.kill()
            core.wait()

    async with connect(vllm_serving) as server:
        killed = await speak(server, wave, on_sound=kill)
        assert killed.status == "failed"
        assert not ready(vllm_serving)
        await until_ready(vllm_serving)
        again = await speak(server, wave)
    assert again.status == "completed"
    assert mentions(again.transcript, question.words), again.transcript
    await asyncio.sleep(0.5)
    assert active_sessions(vllm_serving) == 0
