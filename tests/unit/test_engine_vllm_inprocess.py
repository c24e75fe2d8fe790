"""How long the in-process engine waits for ids; the decoder is scripted, tests/e2e has the real."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from host_pauses import least
from own_time import own_time
from tiny_step1 import write_step1, write_step1_bundle
from vllm_engines import greedy, read

from aqaa.models.bundle import load_bundle
from aqaa.models.errors import EngineDiedError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.engine.settings import VllmSettings
from aqaa.server.engine.vllm import inprocess
from aqaa.server.engine.vllm.answer_clock import PREFILL_IDS_PER_SECOND
from aqaa.server.engine.vllm.inprocess import VllmEngine

pytestmark = pytest.mark.vllm

PATIENCE = 0.6  # seconds of silence
LATE = PATIENCE + 0.4  # to be told of it
STEP = 0.05  # seconds an id
TEXT, AUDIO = 7, 65_536


class ScriptedLlm:
    """What the engine uses of vLLM's `AsyncLLM`: the same id over and over, until it is held."""

    errored = False

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.held: set[str] = set()  # sessions that get no id, as if they stood in a queue
        self.token, self.at_once = TEXT, 1

    async def generate(
        self, prompt: Any, params: Any, request_id: str, *, session_id: str, trace_headers: Any
    ) -> AsyncIterator[Any]:
        for n in range(1, params.max_tokens + 1):
            await asyncio.sleep(STEP)
            while session_id in self.held:  # noqa: ASYNC110
                await asyncio.sleep(STEP)
            await self.goes_on.wait()
            yield SimpleNamespace(
                outputs=[SimpleNamespace(token_ids=[self.token] * self.at_once)],
                finished=n == params.max_tokens,
                num_cached_tokens=0,
            )

    def shutdown(self) -> None:
        self.errored = True


class ScriptedEngine(VllmEngine):
    """Loads no decoder but as many scripted ones as it is asked for, when it may."""

    def __init__(self, folder: Path) -> None:
        bundle = load_bundle(write_step1_bundle(folder / "bundle", write_step1(folder / "decoder")))
        bounds = {"first_id_within": PATIENCE, "give_up_after": PATIENCE}
        super().__init__(bundle, VllmSettings(**bounds, hang_after=60))
        self.llm = ScriptedLlm()
        self.may_load = threading.Event()
        self.may_load.set()
        self.failures = 0  # of the next loads

    def _load(self) -> Any:
        assert self.may_load.wait(30)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("no memory is free yet")
        self.llm = ScriptedLlm()
        return self.llm


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ScriptedEngine]:
    engine = ScriptedEngine(tmp_path)
    await engine.start()
    yield engine
    engine.may_load.set()
    await engine.close()


async def seconds_until_it_fails(answer: AsyncGenerator[int, None]) -> float:
    began = own_time()
    with pytest.raises(EngineDiedError, match="try again"):
        await read(answer)
    return own_time() - began


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_answer_of_which_nothing_more_comes_fails_and_the_engine_is_not_ready(
    engine: ScriptedEngine,
) -> None:
    async def seconds_of_silence() -> float:
        answer = engine.generate("a", [1], greedy(1000))
        await anext(answer)
        engine.llm.goes_on.clear()
        took = await seconds_until_it_fails(answer)
        assert not engine.alive
        engine.llm.goes_on.set()
        await until(lambda: engine.alive)
        return took

    assert PATIENCE - STEP < await least(seconds_of_silence, below=LATE) < LATE


async def test_who_asks_a_silent_decoder_is_told_at_once(engine: ScriptedEngine) -> None:
    engine.llm.goes_on.clear()
    await seconds_until_it_fails(engine.generate("a", [1], greedy(5)))

    async def seconds_until_told() -> float:
        began = own_time()
        with pytest.raises(EngineDiedError):
            await engine.warm("b", [1] * 16)
        return own_time() - began

    assert await least(seconds_until_told, below=PATIENCE / 2) < PATIENCE / 2


async def test_a_decoder_that_goes_on_is_found_though_nobody_asks(engine: ScriptedEngine) -> None:
    former = engine.llm
    engine.llm.goes_on.clear()
    await seconds_until_it_fails(engine.generate("a", [1], greedy(5)))
    former.goes_on.set()
    await until(lambda: engine.alive)
    assert len(await read(engine.generate("a", [1], greedy(5)))) == 5
    assert engine.llm is former, "it was restarted"


async def test_sound_that_is_not_played_yet_is_time_to_come_back(engine: ScriptedEngine) -> None:
    engine.llm.token = AUDIO
    answer = engine.generate("a", [1], greedy(1000))
    began = time.monotonic()
    ids = round(3 * PATIENCE * GROUP_TOKENS / GROUP_SECONDS)
    engine.llm.at_once = ids
    await anext(answer)
    engine.llm.goes_on.clear()
    await seconds_until_it_fails(answer)
    assert time.monotonic() - began > 4 * PATIENCE


async def test_a_long_prompt_is_no_silence_for_anybody(engine: ScriptedEngine) -> None:
    """vLLM computes it in one go, and gives the others nothing meanwhile."""
    prompt = [1] * (2 * PREFILL_IDS_PER_SECOND)  # another second is for the machine's host
    engine.llm.goes_on.clear()
    answers = [
        asyncio.create_task(read(engine.generate(name, ids, greedy(3))))
        for name, ids in (("long", prompt), ("short", [1]))
    ]
    await asyncio.sleep(PATIENCE + 0.5)
    engine.llm.goes_on.set()
    assert [len(ids) for ids in await asyncio.gather(*answers)] == [3, 3]


async def test_an_answer_in_the_queue_waits_as_long_as_the_decoder_gives_ids_to_others(
    engine: ScriptedEngine,
) -> None:
    engine.llm.held.add("queued")
    queued = asyncio.create_task(read(engine.generate("queued", [1], greedy(2))))
    await read(engine.generate("other", [1], greedy(round(3 * PATIENCE / STEP))))
    engine.llm.held.clear()
    assert len(await queued) == 2


async def test_who_asks_while_it_is_restarted_is_told_so_and_need_not_wait_for_it(
    engine: ScriptedEngine,
) -> None:
    engine.may_load.clear()
    engine._on_process_end()
    await asyncio.sleep(STEP)  # what ran is told of the death
    assert not engine.alive

    async def seconds_until_told() -> float:
        return await seconds_until_it_fails(engine.generate("a", [1], greedy(5)))

    assert await least(seconds_until_told, below=LATE) < LATE
    engine.may_load.set()
    await until(lambda: engine.alive)
    assert len(await read(engine.generate("a", [1], greedy(5)))) == 5


async def test_a_decoder_that_does_not_come_back_at_once_is_started_again_without_a_request(
    engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that is not ready gets no requests."""
    monkeypatch.setattr(inprocess, "RESTART_SECONDS", 0.01)
    engine.failures = 2
    engine._on_process_end()
    assert not engine.alive
    await until(lambda: engine.alive)
    assert engine.failures == 0


async def test_a_decoder_that_does_not_come_up_is_not_tried_again_once_the_engine_is_closed(
    engine: ScriptedEngine,
) -> None:
    engine.failures = 1000
    engine._on_process_end()
    await until(lambda: engine.failures < 1000)
    await engine.close()
    await asyncio.sleep(0.1)
    assert engine.failures == 999
