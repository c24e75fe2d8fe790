"""The engines against the published decoder's outputs, and against each other.

Every prompt and every sampling case of the fixtures is taken, whatever they are called.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from aqaa.server.engine.contract import Engine, SamplingParams
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.embedded.sampling import repeated_id
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.server.engine.settings import EmbeddedSettings

LOGITS = 1e-3  # tolerances of the fixtures' README
HIDDEN = 5e-4

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def checkpoint(fixtures_dir: Path) -> Path:
    return fixtures_dir / "checkpoints" / "step1"


@pytest.fixture(scope="module")
def reference(fixtures_dir: Path) -> Arrays:
    return dict(np.load(fixtures_dir / "expected" / "step1.npz"))


@pytest.fixture(scope="module")
def prompts(reference: Arrays) -> list[str]:
    names = [key.removesuffix("/ids") for key in reference if key.endswith("/ids")]
    assert names
    return names


@pytest.fixture(scope="module")
def decoder(checkpoint: Path) -> Step1:
    return Step1.load(checkpoint, context=1024)


def run(decoder: Step1, ids: list[int], chunk: int) -> torch.Tensor:
    """Hidden states of all positions, computed in chunks."""
    cache = decoder.empty_cache(len(ids))
    parts = [
        decoder.forward(torch.tensor(ids[at : at + chunk]), cache, at)
        for at in range(0, len(ids), chunk)
    ]
    return torch.cat(parts)


def furthest(ours: torch.Tensor, theirs: NDArray[np.generic]) -> float:
    return float(np.abs(ours.numpy() - theirs).max())


@pytest.mark.parametrize("chunk", [1, 7, 1024], ids=["one by one", "in chunks", "at once"])
def test_hidden_states_and_logits_are_the_references(
    decoder: Step1, reference: Arrays, prompts: list[str], chunk: int
) -> None:
    subset = torch.from_numpy(reference["subset_ids"])
    for name in prompts:
        hidden = run(decoder, reference[f"{name}/ids"].tolist(), chunk)
        logits = decoder.logits(hidden)
        assert furthest(hidden, reference[f"{name}/final_hidden"]) < HIDDEN, name
        assert furthest(logits[-1], reference[f"{name}/last_logits"]) < LOGITS, name
        assert furthest(logits[:, subset], reference[f"{name}/subset_logits"]) < LOGITS, name


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=tokens)


async def answer(engine: Engine, session: str, prompt: list[int], tokens: int) -> list[int]:
    return [token async for token in engine.generate(session, prompt, greedy(tokens))]


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[Engine]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def check_greedy(engine: Engine, reference: Arrays, prompts: list[str]) -> None:
    """All prompts at once: each gets the reference's ids."""
    expected = [reference[f"{name}/greedy64"].tolist() for name in prompts]
    answers = await asyncio.gather(
        *(
            answer(engine, name, reference[f"{name}/ids"].tolist(), len(ids))
            for name, ids in zip(prompts, expected, strict=True)
        )
    )
    assert dict(zip(prompts, answers, strict=True)) == dict(zip(prompts, expected, strict=True))


async def test_greedy_answers_are_the_references(
    checkpoint: Path, reference: Arrays, prompts: list[str]
) -> None:
    async with started(EmbeddedEngine(checkpoint, EmbeddedSettings(), 1024)) as engine:
        await check_greedy(engine, reference, prompts)


async def test_a_warmed_and_rolled_back_prefix_gives_the_references_answer(
    checkpoint: Path, reference: Arrays, prompts: list[str]
) -> None:
    async with started(EmbeddedEngine(checkpoint, EmbeddedSettings(), 1024)) as engine:
        for name in prompts:
            ids, expected = reference[f"{name}/ids"].tolist(), reference[f"{name}/greedy64"]
            await engine.warm("one", ids[: len(ids) // 2 + 1])
            await answer(engine, "one", [*ids, 5, 6], 3)
            assert await answer(engine, "one", ids, len(expected)) == expected.tolist(), name


@pytest.fixture(params=["vllm_engine", "vllm_tp2_engine"], ids=["TP1", "TP2"])
def vllm(request: pytest.FixtureRequest) -> Engine:
    """vLLM on the CPU, of one process and sharded over two."""
    return request.getfixturevalue(request.param)


@pytest.mark.vllm
@pytest.mark.asyncio(loop_scope="session")
async def test_vllm_answers_as_the_embedded_engine_does(
    vllm: Engine, reference: Arrays, prompts: list[str]
) -> None:
    await check_greedy(vllm, reference, prompts)


def repetition_cases(fixtures_dir: Path) -> Iterator[tuple[list[int], Arrays]]:
    """(ids, scores before and after) of every row of every case."""
    arrays = np.load(fixtures_dir / "expected" / "interleave_sampling.npz")
    for case in range(int(arrays["rep_count"])):
        at = f"rep{case}/"
        for row, ids in enumerate(arrays[at + "ids"]):
            yield ids.tolist(), {key: arrays[at + key][row] for key in ("scores", "out")}


def test_the_repetition_rule_bans_what_the_references_does(fixtures_dir: Path) -> None:
    banned = 0
    for ids, arrays in repetition_cases(fixtures_dir):
        scores = arrays["scores"].copy()
        repeated = repeated_id(ids)
        if repeated is not None:
            scores[repeated] = -np.inf
            banned += 1
        np.testing.assert_array_equal(scores, arrays["out"])
    assert banned
