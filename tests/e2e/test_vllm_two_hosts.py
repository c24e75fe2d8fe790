"""One decoder over two hosts, by vLLM's own launcher and by Ray: the ids of a single process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from callers import WORD_WITHIN
from engine_conformance import in_pattern
from own_time import own_time
from processes import called
from programs import status
from ray_cluster import cpu_for_ray, ray_cluster
from serving import free_port
from two_hosts import Host, TwoHosts, can_be_made
from vllm_engines import API_KEY, greedy, http_settings, long_prompt, read, vllm_settings
from vllm_server import VllmServer

from aqaa.models.bundle import Bundle
from aqaa.models.errors import EngineDiedError
from aqaa.server.engine.contract import Engine
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.settings import EmbeddedSettings, VllmSettings
from aqaa.server.engine.vllm.http import VllmHttpEngine
from aqaa.server.engine.vllm.launch_flags import engine_environment

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(not can_be_made(), reason="needs root, for network namespaces"),
]

CONTEXT = 4096
PROMPTS = [1, 16, 160, 600]  # ids
ENDLESS = 3000  # ids: a minute's work at the pace of `slow_steps`
PATIENT = {"first_id_within": 30.0, "next_id_within": 30.0, "give_up_after": 60.0}  # seconds


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    with TwoHosts() as hosts:
        yield hosts


async def answers(engine: Engine) -> list[list[int]]:
    """To short and long prompts at once, and to one in a pattern."""
    prompts = [long_prompt(engine.vocab_size, length, seed=length) for length in PROMPTS]
    plain = [read(engine.generate(f"p{len(p)}", p, greedy(40))) for p in prompts]
    woven = read(engine.generate("woven", prompts[-1], in_pattern(engine, 60, None)))
    return await asyncio.gather(*plain, woven)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def expected(step1_bundle: Bundle) -> list[list[int]]:
    """What one process says; vLLM in one says the same (tests/parity/test_engines_vllm.py)."""
    decoder = step1_bundle.decoder
    engine = EmbeddedEngine(decoder.path, EmbeddedSettings(), context=decoder.context)
    await engine.start()
    ids = await answers(engine)
    await engine.close()
    return ids


@contextmanager
def launched(
    hosts: TwoHosts, bundle: Bundle, settings: VllmSettings, folder: Path
) -> Iterator[tuple[VllmServer, VllmServer]]:
    """`vllm serve --nnodes 2`: what runs on either host. As deploy/vllm/two-nodes.md has it."""
    port = str(free_port())
    common = ("--nnodes", "2", "--master-addr", hosts.first.address, "--master-port", port)

    def on(host: Host, rank: str, cpu: int, *more: str) -> VllmServer:
        return VllmServer(
            bundle.decoder.path,
            CONTEXT,
            settings.model_copy(update={"cpu_threads_bind": str(cpu)}),
            API_KEY,
            folder / f"rank{rank}.log",
            host=hosts.near,
            inside=host.inside,
            flags=(*common, "--node-rank", rank, *more),
            environment=host.environment,
        )

    cpus = sorted(os.sched_getaffinity(0))
    first = on(hosts.first, "0", cpus[0])
    second = on(hosts.second, "1", cpus[-1], "--headless")
    try:
        second.launch()
        first.start()
        yield first, second
    finally:
        first.stop()
        second.stop()


@asynccontextmanager
async def callers(
    bundle: Bundle, server: VllmServer
) -> AsyncIterator[tuple[VllmHttpEngine, VllmHttpEngine]]:
    """Who gives up as soon as a listener would, and who waits for ids however slow hosts are."""
    hasty = VllmHttpEngine(bundle, http_settings(server.url))
    patient = VllmHttpEngine(bundle, http_settings(server.url, **PATIENT))
    try:
        await hasty.start()
        await patient.start()
        yield hasty, patient
    finally:
        await hasty.close()
        await patient.close()


async def found_each_other(engine: VllmHttpEngine) -> None:
    """Waits until the hosts have, for the first time or again; the API server is well before."""
    async with asyncio.timeout(60):
        while True:
            try:
                await read(engine.generate("found", [5], greedy(1)))
            except EngineDiedError:
                await asyncio.sleep(0.5)
            else:
                return


async def given_up(engine: VllmHttpEngine, strike: Callable[[], object]) -> float:
    """Seconds from a blow in mid-answer until that answer fails."""
    stream = engine.generate("struck", [5, 6], greedy(ENDLESS))
    await anext(stream)
    strike()
    struck = own_time()
    with pytest.raises(EngineDiedError):
        await read(stream)
    return own_time() - struck


async def test_tensor_parallel_over_two_hosts_and_what_a_cut_cable_and_a_dead_host_do(
    hosts, step1_bundle, tmp_path, expected
):
    settings = vllm_settings().model_copy(update={"tensor_parallel_size": 2})
    with launched(hosts, step1_bundle, settings, tmp_path) as (first, second):
        async with callers(step1_bundle, first) as (hasty, patient):
            await found_each_other(hasty)
            assert await answers(patient) == expected

            assert await given_up(hasty, lambda: hosts.cut(True)) < WORD_WITHIN
            assert status(f"{first.url}/health") == 200, "it notices nothing"
            hosts.cut(False)
            await found_each_other(hasty)
            assert await answers(patient) == expected

            assert await given_up(hasty, second.kill) < WORD_WITHIN


async def test_pipeline_parallel_over_two_hosts(hosts, step1_bundle, tmp_path, expected):
    """Compiled: vLLM's CPU runner dies at the first request when it is eager."""
    split = {"pipeline_parallel_size": 2, "enforce_eager": False}
    settings = vllm_settings().model_copy(update=split)
    with launched(hosts, step1_bundle, settings, tmp_path) as (first, _):
        async with callers(step1_bundle, first) as (hasty, patient):
            await found_each_other(hasty)
            assert await answers(patient) == expected


async def test_tensor_parallel_over_two_hosts_of_ray_and_a_worker_that_freezes_or_dies(
    hosts, step1_bundle, tmp_path, expected
):
    pytest.importorskip("ray", reason="needs Ray: pip install 'aqaa[ray]'")
    settings = vllm_settings().model_copy(
        update={"tensor_parallel_size": 2, "cpu_threads_bind": "nobind"}
    )
    variables = cpu_for_ray(tmp_path / "plugin") | engine_environment(settings, cuda=False)
    with ray_cluster(hosts.first, hosts.second, gpus=1, **variables) as address:
        server = VllmServer(
            step1_bundle.decoder.path,
            CONTEXT,
            settings,
            API_KEY,
            tmp_path / "serve.log",
            host=hosts.near,
            inside=hosts.first.inside,
            flags=("--distributed-executor-backend", "ray"),
            environment=hosts.first.environment | variables | {"RAY_ADDRESS": address},
        )
        server.start()
        try:
            async with callers(step1_bundle, server) as (hasty, patient):
                await found_each_other(hasty)
                assert await answers(patient) == expected
                workers = [ray_workers(host) for host in (hosts.first, hosts.second)]
                assert [len(on_host) for on_host in workers] == [1, 1]
                worker = workers[1][0]

                assert await given_up(hasty, worker.suspend) < WORD_WITHIN
                assert status(f"{server.url}/health") == 200, "it notices nothing"
                worker.resume()
                await found_each_other(hasty)
                assert await answers(patient) == expected

                assert await given_up(hasty, worker.kill) < WORD_WITHIN
                await asyncio.to_thread(server.ends)  # for its supervisor to see
        finally:
            server.stop()


def ray_workers(host: Host) -> list[psutil.Process]:
    """vLLM's processes that Ray has placed there."""
    return called("RayWorkerProc", host.processes())
