"""The embedded engine on nano: speed, fairness, what a computed prefix saves, cancelling."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
import time
from contextlib import aclosing

from aqaa.models.bundle import load_bundle, nano_path
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.embedded.engine import EmbeddedEngine
from aqaa.server.engine.settings import EmbeddedSettings

TITLE = "Embedded engine (nano, one worker thread)"
TOKENS = 200
PROMPT = 1000
ADDED = 20
ROUNDS = 7


def a_prompt(engine: EmbeddedEngine, length: int, seed: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(engine.vocab_size) for _ in range(length)]


def sampled(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.7, top_p=0.9, max_tokens=tokens)


async def gaps(engine: EmbeddedEngine, session: str, prompt: list[int]) -> list[float]:
    """Seconds between one id and the next, as the reader sees them; the first is not counted."""
    times = []
    async with aclosing(engine.generate(session, prompt, sampled(TOKENS))) as stream:
        async for _ in stream:
            times.append(time.perf_counter())
    await engine.release(session)
    return [after - before for before, after in itertools.pairwise(times)]


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def fairness(engine: EmbeddedEngine) -> list[str]:
    rows = [
        "| conversations | tokens/s in all | gap mean ms | p50 | p99, worst conversation | "
        "p99 / mean, worst |",
        "|---|---|---|---|---|---|",
    ]
    for count in (1, 2, 4, 8):
        found = await asyncio.gather(
            *(gaps(engine, f"{count}-{n}", a_prompt(engine, 300, n)) for n in range(count))
        )
        every = [gap for each in found for gap in each]
        mean = statistics.mean(every)
        worst = max(percentile(each, 0.99) for each in found)
        ratio = max(percentile(each, 0.99) / statistics.mean(each) for each in found)
        half = percentile(every, 0.5)
        rows.append(
            f"| {count} | {count / mean:.0f} | {mean * 1e3:.2f} | {half * 1e3:.2f} | "
            f"{worst * 1e3:.2f} | {ratio:.2f} |"
        )
    return rows


async def first_token(engine: EmbeddedEngine, session: str, prompt: list[int]) -> tuple[float, int]:
    """Seconds to the first id, and prompt ids that were computed for it."""
    before = engine.stats().computed_tokens
    began = time.perf_counter()
    async with aclosing(engine.generate(session, prompt, sampled(5))) as stream:
        await anext(stream)
        took = time.perf_counter() - began
    return took, engine.stats().computed_tokens - before


async def reuse(engine: EmbeddedEngine) -> list[str]:
    found: dict[str, list[tuple[float, int]]] = {"cold": [], "warmed": [], "rolled back": []}
    for seed in range(ROUNDS):
        session, prompt = f"reuse-{seed}", a_prompt(engine, PROMPT, seed)
        found["cold"].append(await first_token(engine, session, prompt))
        await engine.warm(session, prompt)
        found["warmed"].append(await first_token(engine, session, prompt + [5] * ADDED))
        found["rolled back"].append(await first_token(engine, session, prompt + [6] * ADDED))
        await engine.release(session)
    cold = statistics.median(took for took, _ in found["cold"])
    rows = ["| prompt | ids computed | first id after ms | cold / this |", "|---|---|---|---|"]
    for name, measured in found.items():
        took = statistics.median(seconds for seconds, _ in measured)
        length = PROMPT if name == "cold" else f"{PROMPT} + {ADDED}"
        rows.append(
            f"| {name}, {length} | {measured[0][1]} | {took * 1e3:.1f} | {cold / took:.1f} |"
        )
    return rows


async def cancelling(engine: EmbeddedEngine) -> list[str]:
    took = []
    for seed in range(50):
        stream = engine.generate("cancel", a_prompt(engine, 50, seed), sampled(TOKENS))
        await anext(stream)
        began = time.perf_counter()
        await engine.cancel("cancel")
        async for _ in stream:
            pass
        took.append(time.perf_counter() - began)
    return [
        f"Cancel to the end of the stream: p50 {percentile(took, 0.5) * 1e3:.2f} ms, "
        f"p99 {percentile(took, 0.99) * 1e3:.2f} ms."
    ]


async def run() -> str:
    decoder = load_bundle(nano_path()).decoder
    engine = EmbeddedEngine(decoder.path, EmbeddedSettings(), decoder.context)
    began = time.perf_counter()
    await engine.start()
    ready = time.perf_counter() - began
    try:
        await gaps(engine, "first", a_prompt(engine, 50, 0))
        parts = [
            [f"Ready {ready:.2f} s after `start`."],
            await fairness(engine),
            await reuse(engine),
            await cancelling(engine),
        ]
    finally:
        await engine.close()
    return "\n\n".join("\n".join(part) for part in parts)


def main() -> str:
    return asyncio.run(run())


if __name__ == "__main__":
    print(main())
