"""Parts that take the time of a large model and compute nothing: what is left is the gateway's.

The gateway, the protocol, voice activity detection and resampling are real. The decoder's ids come
at the pace of the 130 B's; a batch of a tokenizer or of the vocoder is a sleep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scripted import (
    AUDIO,
    GROUP_SAMPLES,
    GROUP_SOUND,
    GroupStream,
    GroupTokenizer,
    Samples,
    ScriptedEngine,
    group,
    scripted_parts,
    woven,
)

from aqaa.models.groups import GROUP_TOKENS
from aqaa.server.compute.executor import Executor
from aqaa.server.config import Settings
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.plan import OPENING_IDS_PER_SECOND
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.vad import VadModel
from aqaa.server.parts import ModelParts, synthesis_of
from aqaa.tokenizers.steps import Steps

# A batch's time: nano's on one core (docs/performance.md, answering/start_gate.py). The published
# networks' on a GPU have not been measured.
LINGUISTIC_SECONDS, SEMANTIC_SECONDS = 0.0101, 0.0074  # for each 240 ms
TOKENIZER_CHUNK = 3840  # samples at 16 kHz: 240 ms
FIRST_CHUNK_SECONDS, LATER_CHUNK_SECONDS = 0.048, 0.071
# Of the vocoder's chunks: the first three, the later ones. With these an answer starts with its
# first chunk and has no gap, by 0.1 s or more, as long as only the models take time.
FIRST_GROUPS, LATER_GROUPS = 3, 6
FIRST_CHUNKS = 3
PREFILL_SECONDS = 0.05  # an assumption: most of a prompt is computed while the user speaks
IDS_PER_SECOND = OPENING_IDS_PER_SECOND
AHEAD_SECONDS = Settings.model_fields["ahead_seconds"].default
THREADS = 32  # of the executor: they sleep, as if each batch had a device of its own

GROUPS = 25  # 3 s of speech
HEARD = group(0)  # whatever was said in it
ANSWER = woven("Ten tokens", GROUPS)  # as much text as is spoken in them, in subwords


def due(number: int) -> float:
    """Seconds from the prompt to the answer's id of this number, counted from 0."""
    return PREFILL_SECONDS + number / IDS_PER_SECOND


def first_sound_due() -> float:
    """Seconds from the end of a turn to the answer's first sound, if nothing but models took time.

    Speculation is off, and the question's last ids were made at its pause.
    """
    first_audio = next(n for n, token in enumerate(ANSWER) if token >= AUDIO)
    return due(first_audio + FIRST_GROUPS * GROUP_TOKENS - 1) + FIRST_CHUNK_SECONDS


class PacedEngine(ScriptedEngine):
    """Each id when it is due, however late the ones before were taken."""

    async def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        began = time.monotonic()
        self.running += 1
        try:
            for number, token in enumerate(ANSWER):
                wait = began + due(number) - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                yield token
        finally:
            self.running -= 1


@dataclass(frozen=True)
class Linguistic:
    """A chunk for the linguistic tokenizer's network."""


@dataclass(frozen=True)
class Semantic:
    """A chunk for the semantic tokenizer's network."""


Chunk = Linguistic | Semantic


class PacedTokenizer(GroupTokenizer):
    """Two networks for each 240 ms."""

    def stream(self) -> GroupStream:
        return PacedStream()

    def run(self, requests: Sequence[object]) -> Sequence[None]:
        linguistic = any(isinstance(request, Linguistic) for request in requests)
        time.sleep(LINGUISTIC_SECONDS if linguistic else SEMANTIC_SECONDS)
        return [None] * len(requests)


class PacedStream(GroupStream):
    """A group of ids for each that is whole, after the networks' time."""

    def __init__(self, samples: int = 0, groups: int = 0) -> None:
        super().__init__()
        self._samples = samples  # so many it was given
        self._groups = groups  # so many it gave

    def pushing(self, pcm: Samples) -> Steps[Chunk, None, list[int]]:
        before = self._samples // TOKENIZER_CHUNK
        self._samples += pcm.size
        for _ in range(self._samples // TOKENIZER_CHUNK - before):
            yield Linguistic()
            yield Semantic()
        new = self._samples // GROUP_SAMPLES - self._groups
        self._groups += new
        return new * HEARD

    def flushing(self) -> Steps[Chunk, None, list[int]]:
        yield Linguistic()
        yield Semantic()
        return []

    def fork(self) -> PacedStream:
        return PacedStream(self._samples, self._groups)


class PacedVoice:
    """Silence, in chunks of three groups and then of six."""

    def __init__(self) -> None:
        self._groups = 0
        self._chunks = 0

    def feed(self, tokens: Sequence[int]) -> None:
        self._groups += len(tokens) // GROUP_TOKENS

    def due(self, *, final: bool = False) -> tuple[int, bool] | None:
        """How many groups, and whether the chunk is of the first."""
        first = self._chunks < FIRST_CHUNKS
        wanted = FIRST_GROUPS if first else LATER_GROUPS
        if self._groups >= wanted or (final and self._groups):
            return min(wanted, self._groups), first
        return None

    def take(self, synthesised: int) -> Samples:
        self._groups -= synthesised
        self._chunks += 1
        return np.zeros(synthesised * GROUP_SOUND, np.float32)


class PacedVocoder:
    """Sleeps for each batch."""

    def stream(self, voice: str, speed: float = 1.0) -> PacedVoice:
        return PacedVoice()

    def synthesise(self, chunks: Sequence[tuple[int, bool]]) -> list[int]:
        first = all(first for _, first in chunks)
        time.sleep(FIRST_CHUNK_SECONDS if first else LATER_CHUNK_SECONDS)
        return [groups for groups, _ in chunks]

    max_batch = 4
    at_once = None

    def shape_of(self, chunk: tuple[int, bool]) -> bool:
        return chunk[1]


def paced_parts(engine: PacedEngine) -> ModelParts:
    """All parts; close `parts.services.executor` when done."""
    executor = Executor(THREADS)
    parts = scripted_parts(engine, executor=executor, speculation=False)
    tokenizer, vocoder = PacedTokenizer(), PacedVocoder()
    services = replace(
        parts.services,
        vocoder=vocoder,
        synthesis=synthesis_of(vocoder),
        ahead_seconds=AHEAD_SECONDS,
    )
    return replace(
        parts,
        tokenizer=tokenizer,
        tokenising=Tokenising(tokenizer),
        vad=VadModel.load(),
        judge=None,
        services=services,
    )
