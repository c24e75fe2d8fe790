"""What the way from a pause to an answer's first sound costs, in processor time.

Processor time, because the clock of a shared machine tells more of its other work than of this. On
an idle machine the stages follow one another: their sum is what a lone speaker waits, less what
threads take to hand over.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_tables import markdown
from recorded_questions import Sound, questions

from aqaa.clients.client import WIRE_RATE
from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.compute.model import compute_alone
from aqaa.server.config import Settings
from aqaa.server.dialogue.answer_parser import AudioGroup
from aqaa.server.dialogue.prompt import UserTurn
from aqaa.server.parts import ModelParts, VoiceStream, output_of
from aqaa.server.protocol.types import PcmFormat
from aqaa.server.runtime import Runtime

TITLE = "From the pause to the first sound (nano)"
STAGES = ("tokens", "prompt and ids", "chunk", "encoding")
STEP = TOKENIZER_RATE // 50  # samples in a piece, as a microphone gives them


def main(rounds: int = 3) -> str:
    """Markdown: milliseconds of each stage. Takes about twenty seconds of one idle core."""
    torch.set_num_threads(1)  # as in the server's threads
    spoken = [soxr.resample(wave, WIRE_RATE, TOKENIZER_RATE) for wave in questions()]
    taken, lasts, groups = asyncio.run(_measure(spoken * rounds))
    rows = []
    for q in (50, 95):
        stages = [f"{np.percentile(column, q):.1f}" for column in taken.T]
        rows.append([f"p{q}", *stages, f"{np.percentile(taken.sum(axis=1), q):.1f}"])
    return (
        f"The first chunk: {groups} groups, {lasts * 1000:.0f} ms of sound. Milliseconds of "
        "processor time: of the whole process for prompt and ids, of their thread for the others."
        "\n\n" + markdown(["", *STAGES, "all"], rows)
    )


async def _measure(spoken: Sequence[Sound]) -> tuple[np.ndarray[Any, Any], float, int]:
    """[questions, stages] milliseconds; seconds of sound and groups in the first chunk."""
    runtime = await Runtime.load(Settings())
    try:
        found = [await _one(runtime.parts, wave, f"bench-{n}") for n, wave in enumerate(spoken)]
    finally:
        await runtime.close()
    return np.array([stages for stages, _, _ in found]), found[0][1], found[0][2]


async def _one(parts: ModelParts, wave: Sound, key: str) -> tuple[list[float], float, int]:
    engine, prompts = parts.services.engine, parts.prompts

    def prompt(ids: Sequence[int], *, over: bool) -> list[int]:
        rendered = [prompts.render(UserTurn((tuple(ids),)))]
        return list(prompts.finished(rendered) if over else prompts.unfinished(rendered))

    stream, ids = parts.tokenising.stream(), list[int]()
    for begin in range(0, wave.size, STEP):
        new = compute_alone(parts.tokenising.push(stream, wave[begin : begin + STEP]))
        ids += new
        if new:
            await engine.warm(key, prompt(ids, over=False))
    rest, tokens_ms = _timed(lambda: compute_alone(parts.tokenising.flush(stream.fork())))
    began = time.process_time()
    voice = parts.services.vocoder.stream(parts.voices.default)
    groups, chunk = await _first_chunk(parts, key, prompt([*ids, *rest], over=True), voice)
    ids_ms = 1000 * (time.process_time() - began)
    sound, chunk_ms = _timed(lambda: voice.take(compute_alone(parts.services.synthesis.ask(chunk))))
    output = output_of(PcmFormat(rate=WIRE_RATE))
    data, encoding_ms = _timed(lambda: output.push(sound))
    await engine.release(key)
    return [tokens_ms, ids_ms, chunk_ms, encoding_ms], len(data) / 2 / WIRE_RATE, groups


async def _first_chunk(
    parts: ModelParts, key: str, prompt: list[int], voice: VoiceStream
) -> tuple[int, Any]:
    """Have the engine answer until a chunk is due; how many groups it took, and the chunk."""
    parser, groups = parts.parser(), 0
    asked, params = parts.asked(prompt, None, None)
    answer = parts.services.engine.generate(key, asked, params)
    async for token in answer:
        for event in parser.push([token]):
            if isinstance(event, AudioGroup):
                voice.feed(event.tokens)
                groups += 1
        if (chunk := voice.due()) is not None:
            await answer.aclose()
            return groups, chunk
    raise RuntimeError("the answer is shorter than the first chunk")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Its outcome, and the milliseconds of this thread's processor time that it took."""
    began = time.thread_time()
    outcome = work()
    return outcome, 1000 * (time.thread_time() - began)
