"""What the in-process vLLM engine does beyond the shared suite: aborts, bad files, orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
import traced_vllm
from otlp_collector import collecting
from tiny_step1 import write_step1, write_step1_bundle
from vllm_engines import greedy, long_prompt, read, vllm_settings
from vllm_server import engine_core

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
async def test_a_decoder_that_hangs_ends_its_answers_and_is_restarted(vllm_engine):
    stream = vllm_engine.generate("hung", [5, 6, 7], greedy(3000))
    await anext(stream)
    alone = [p for p in psutil.Process().children() if "Worker_TP" not in str(p.children())]
    engine_core(alone).suspend()
    began = time.monotonic()
    with pytest.raises(EngineDiedError):
        await read(stream)
    assert time.monotonic() - began < 25
    assert not vllm_engine.alive
    assert len(await read(vllm_engine.generate("next", [5, 6, 7], greedy(4)))) == 4


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


def test_vllms_span_of_an_answer_is_a_child_of_its_turn(tmp_path):
    bundle = write_step1_bundle(tmp_path / "bundle", write_step1(tmp_path / "decoder"))
    with collecting() as collector:
        environment = os.environ | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        command = [sys.executable, traced_vllm.__file__, str(bundle)]
        subprocess.run(command, env=environment, check=True, timeout=300)
    spans = [s for s in collector.spans if s.trace_id.hex() == traced_vllm.TRACE_ID]
    assert [(s.name, s.parent_span_id.hex()) for s in spans] == [
        ("llm_request", traced_vllm.SPAN_ID)
    ]


def test_vllms_processes_end_when_their_gateway_is_killed(tmp_path):
    """In a process of its own, which stands for the gateway."""
    decoder = write_step1(tmp_path / "decoder")
    bundle = write_step1_bundle(tmp_path / "bundle", decoder)
    script = tmp_path / "gateway.py"
    script.write_text(
        f"""\
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent.parent / "support")!r})
from pathlib import Path
from vllm_engines import vllm_settings
from aqaa.models.bundle import load_bundle
from aqaa.server.engine.vllm.inprocess import VllmEngine

async def main():
    await VllmEngine(load_bundle(Path({str(bundle)!r})), vllm_settings()).start()
    print("started", flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as gateway:
        assert gateway.stdout is not None
        while gateway.stdout.readline().strip() != "started":
            assert gateway.poll() is None
        children = psutil.Process(gateway.pid).children(recursive=True)
        vllm = [p for p in children if "VLLM" in " ".join(p.cmdline())]
        assert vllm
        os.kill(gateway.pid, signal.SIGKILL)
    assert not psutil.wait_procs(vllm, timeout=5)[1]
