"""Ask for an answer of scripted models, and see what comes of it and what work it makes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from scripted import ScriptedEngine

from aqaa.server.answering.answer import Answer, AnswerRequest
from aqaa.server.answering.answer_events import AnswerEnd, AnswerEvent, AnswerSound
from aqaa.server.compute.executor import Executor, Job
from aqaa.server.compute.model import Work
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.parts import ModelParts, output_of
from aqaa.server.protocol.types import PcmFormat
from aqaa.server.urgency import Kind

T = TypeVar("T")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def still(answer: Answer) -> None:
    """Wait until nothing more comes of it: for many times the 2 ms that an id takes."""
    seen = None
    while seen != (now := (len(answer.progress.ids), answer.progress.made)):
        seen = now
        await asyncio.sleep(0.1)


async def first_sound(answer: Answer) -> AnswerSound:
    while not isinstance(event := await answer.next(), AnswerSound):
        pass
    return event


def asking(parts: ModelParts, prompt: Sequence[int] = (1, 4, 104)) -> Answer:
    asked = AnswerRequest(tuple(prompt), SamplingParams.of(parts.bundle), "joe", 1.0, spoken=True)
    wire = PcmFormat()
    return Answer(
        parts.services, "key", asked, parts.parser(), output_of(wire), bytes_per_second=48_000
    )


def asking_in_vain(parts: ModelParts) -> Answer:
    """As `asking`, of a decoder that says nothing."""
    silent = ScriptedEngine()
    silent.gate = asyncio.Event()
    return asking(replace(parts, services=replace(parts.services, engine=silent)))


async def said_by(answer: Answer) -> list[AnswerEvent]:
    answer.adopt()
    said: list[AnswerEvent] = []
    while not said or not isinstance(said[-1], AnswerEnd):
        said.append(await answer.next())
    await answer.stop()
    return said


class Orders(Executor):
    """Keeps what kind of work it was given, and for when."""

    def __init__(self) -> None:
        super().__init__(1)
        self.orders: list[tuple[Kind, float | None]] = []
        self.changes: list[Kind] = []
        self.submitted = asyncio.Event()

    def submit(self, steps: Work[T], kind: Kind, deadline: float | None = None) -> Job[T]:
        self.orders.append((kind, deadline))
        job = super().submit(steps, kind, deadline)
        self.submitted.set()
        return job

    def change(self, job: Job[Any], kind: Kind, deadline: float | None) -> None:
        self.changes.append(kind)
        super().change(job, kind, deadline)
