"""What the in-process vLLM engine does beyond the shared suite: aborts, bad files, orphans."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing

import psutil
import pytest
import vllm_gateway
from host_pauses import HOST_SECONDS, least
from otlp_collector import Collector, collecting
from own_time import own_time
from processes import called
from programs import eventually
from tiny_step1 import write_step1, write_step1_bundle
from vllm_engines import greedy, long_prompt, read, vllm_settings
from vllm_server import READY_WITHIN, engine_core

from aqaa.models.bundle import load_bundle
from aqaa.models.errors import BundleError, EngineDiedError
from aqaa.server.engine.vllm.inprocess import VllmEngine

pytestmark = pytest.mark.vllm


def family() -> list[psutil.Process]:
    """The processes that vLLM has started below this one."""
    return psutil.Process().children(recursive=True)


@pytest.mark.asyncio(loop_scope="session")
async def test_cancelled_streams_leave_no_request_in_vllm(vllm_engine):
    prompt = long_prompt(vllm_engine.vocab_size, 40, seed=4)
    for _ in range(20):
        async with aclosing(vllm_engine.generate("stop", prompt, greedy(2000))) as stream:
            await anext(stream)
            await vllm_engine.cancel("stop")
    assert vllm_engine.stats().running == 0
    assert vllm_engine._llm.get_num_unfinished_requests() == 0


@pytest.mark.asyncio(loop_scope="session")
async def test_a_decoder_that_hangs_fails_its_answers_within_two_seconds_and_may_go_on(vllm_engine):
    core = decoder_of_one_process()

    async def seconds_of_a_hang() -> float:
        took = await seconds_until_told(vllm_engine, core)
        assert not vllm_engine.alive
        core.resume()
        await alive_again(vllm_engine)
        return took

    assert await least(seconds_of_a_hang, below=2.0) < 2.0
    assert len(await read(vllm_engine.generate("next", [5, 6, 7], greedy(4)))) == 4
    assert core == decoder_of_one_process(), "it was restarted"


@pytest.mark.asyncio(loop_scope="session")
async def test_a_decoder_that_stays_hung_is_restarted_and_nobody_need_wait_for_it(vllm_engine):
    core = decoder_of_one_process()
    await seconds_until_told(vllm_engine, core)
    async with asyncio.timeout(25):
        while core.is_running() and core.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    began = own_time()
    with pytest.raises(EngineDiedError, match="try again"):
        await read(vllm_engine.generate("next", [5, 6, 7], greedy(4)))
    assert own_time() - began < 2.0 + HOST_SECONDS
    await alive_again(vllm_engine)
    assert len(await read(vllm_engine.generate("next", [5, 6, 7], greedy(4)))) == 4


def decoder_of_one_process() -> psutil.Process:
    return engine_core(
        [p for p in psutil.Process().children() if "Worker_TP" not in str(p.children())]
    )


async def seconds_until_told(engine: VllmEngine, core: psutil.Process) -> float:
    """That it hangs, in mid-answer, while somebody listens."""
    stream = engine.generate("hung", [5, 6, 7], greedy(3000))
    await anext(stream)
    listening = asyncio.create_task(read(stream))
    await asyncio.sleep(0.1)
    core.suspend()
    began = own_time()
    with pytest.raises(EngineDiedError, match="no id"):
        await listening
    return own_time() - began


async def alive_again(engine: VllmEngine) -> None:
    async with asyncio.timeout(READY_WITHIN):
        while not engine.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_request_does_not_start_an_engine_that_was_closed(step1_bundle):
    engine = VllmEngine(step1_bundle, vllm_settings())
    await engine.close()
    before = family()
    with pytest.raises(EngineDiedError, match="start it"):
        await read(engine.generate("late", [5], greedy(1)))
    assert family() == before


@pytest.mark.asyncio(loop_scope="session")
async def test_a_checkpoint_that_lacks_a_key_is_refused_before_vllm_starts(tmp_path):
    decoder = write_step1(tmp_path / "decoder")
    text = (decoder / "config.json").read_text()
    (decoder / "config.json").write_text(text.replace("num_attention_groups", "other"))
    with pytest.raises(BundleError, match="num_attention_groups"):
        VllmEngine(load_bundle(write_step1_bundle(tmp_path, decoder)), vllm_settings())


@pytest.mark.asyncio(loop_scope="session")
async def test_a_checkpoint_whose_tensors_do_not_fit_is_refused_before_vllm_starts(tmp_path):
    decoder = write_step1(tmp_path / "decoder", intermediate_size=192)
    text = (decoder / "config.json").read_text()
    (decoder / "config.json").write_text(text.replace("192", "256"))
    engine = VllmEngine(load_bundle(write_step1_bundle(tmp_path, decoder)), vllm_settings())
    before = family()
    with pytest.raises(BundleError, match="mlp"):
        await engine.start()
    assert family() == before


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[subprocess.Popen[str], Collector]]:
    """A process of its own, which has given an answer; what it has told of it."""
    folder = tmp_path_factory.mktemp("gateway")
    bundle = write_step1_bundle(folder / "bundle", write_step1(folder / "decoder"))
    with collecting() as collector:
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        command = [sys.executable, vllm_gateway.__file__, str(bundle)]
        with subprocess.Popen(
            command, env=os.environ | traces, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            while process.stdout.readline().strip() != "answered":
                assert process.poll() is None
            yield process, collector
            process.kill()


def test_vllms_span_of_an_answer_is_a_child_of_its_turn(gateway):
    _, collector = gateway

    def of_turn() -> list[tuple[str, str]]:
        mine = (s for s in collector.spans if s.trace_id.hex() == vllm_gateway.TRACE_ID)
        return [(s.name, s.parent_span_id.hex()) for s in mine]

    eventually(of_turn)
    assert of_turn() == [("llm_request", vllm_gateway.SPAN_ID)]


def test_vllms_processes_end_when_their_gateway_is_killed(gateway):
    """The last test of that process."""
    process, _ = gateway
    vllm = called("VLLM", psutil.Process(process.pid).children(recursive=True))
    assert vllm
    os.kill(process.pid, signal.SIGKILL)
    assert not psutil.wait_procs(vllm, timeout=5)[1]
