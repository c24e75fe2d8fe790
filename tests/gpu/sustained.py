"""How many voices and how many ears one device sustains, through the server's own executor."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tiny_vocoder import tokens

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Model, Work
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.urgency import Kind
from aqaa.vocoder.vocoder import Vocoder

THREADS = 8
MET = 0.99  # share of deadlines that counts as sustained
EAR_SECONDS = 0.24  # of sound a push: a linguistic chunk
Beat = Callable[[], Work[Any]]  # the next work of one session


def voice(vocoder: Vocoder, synthesis: Model[Any, Any], name: str) -> tuple[Beat, float]:
    """One answer's steady chunks without end, and the seconds of sound in each."""
    groups = vocoder.synthesiser.config.chunk_groups[-1]
    stream = vocoder.stream(name)

    def beat() -> Work[Any]:
        stream.feed(tokens(groups))
        chunk = stream.due()
        return None if chunk is None else stream.take((yield from synthesis.ask(chunk)))

    return beat, groups * GROUP_SECONDS


def ear(tokenizing: Tokenising) -> tuple[Beat, float]:
    """One speaker without end, and the seconds of speech in each push."""
    stream = tokenizing.stream()
    noise = np.random.default_rng(0).normal(0, 0.05, round(EAR_SECONDS * TOKENIZER_RATE))

    def beat() -> Work[Any]:
        return (yield from tokenizing.push(stream, noise.astype(np.float32)))

    return beat, EAR_SECONDS


def sustained(
    session: Callable[[], tuple[Beat, float]], counts: tuple[int, ...], seconds: float
) -> dict[str, Any]:
    """Sessions of which `MET` of the deadlines are met, of `counts`, and the share at each.

    A deadline is the end of the sound that the former piece holds: later, somebody hears a gap.
    """
    shares: dict[str, float] = {}
    best = 0
    for count in counts:
        shares[str(count)] = round(asyncio.run(_run(session, count, seconds)), 4)
        if shares[str(count)] < MET:
            break
        best = count
    return {"sustained": best, "deadlines_met": shares}


async def _run(session: Callable[[], tuple[Beat, float]], count: int, seconds: float) -> float:
    executor = Executor(THREADS)
    try:
        beats = [session() for _ in range(count)]
        outcomes = await asyncio.gather(
            *(
                _play(executor, beat, period, seconds, random.Random(number))
                for number, (beat, period) in enumerate(beats)
            )
        )
        late = [is_late for outcome in outcomes for is_late in outcome]
        return 1 - sum(late) / len(late)
    finally:
        await asyncio.to_thread(executor.close)


async def _play(
    executor: Executor, beat: Beat, period: float, seconds: float, rng: random.Random
) -> list[bool]:
    """Ask for a piece each `period`, from a random moment on; whether each came too late.

    Whoever comes too late has lost that time for good, as a player that ran dry has.
    """
    late: list[bool] = []
    due = time.monotonic() + rng.random() * period
    end = due + seconds
    while due < end:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await executor.run(beat(), Kind.LIVE, due + period)
        now = time.monotonic()
        late.append(now > due + period)
        due = max(due + period, now)
    return late
