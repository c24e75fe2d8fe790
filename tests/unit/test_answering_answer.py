"""One answer from prompt to sound: what order and amount things come in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scripted import ScriptedEngine, Voice, scripted_parts, woven

from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.answering.answer import (
    FIRST_SOUND_SECONDS,
    SPECULATION_SECONDS,
    Answer,
    AnswerEnd,
    AnswerEvent,
    AnswerRequest,
    AnswerSound,
    AnswerText,
)
from aqaa.server.answering.start_gate import MIN_START_SECONDS
from aqaa.server.compute.workers import Workers
from aqaa.server.parts import ModelParts, output_of
from aqaa.server.protocol.types import PcmFormat


class StillClock:
    """Time that stands still."""

    def __call__(self) -> float:
        return 1000.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Drops(Voice):
    """Each group gives 30 ms of sound at once, and the rest at the end."""

    def push(self, tokens: Sequence[int]) -> np.ndarray:
        whole = super().push(tokens)
        return whole[: len(tokens) // 5 * 660]


class DroppingVoices:
    def stream(self, voice: str, speed: float = 1.0) -> Drops:
        return Drops(voice, speed)


def single_answer(parts: ModelParts, prompt: Sequence[int] = (1, 4, 104)) -> Answer:
    asked = AnswerRequest(tuple(prompt), parts.sampling(), "joe", 1.0, spoken=True)
    wire = PcmFormat()
    return Answer(
        parts.services, "key", asked, parts.parser(), output_of(wire), bytes_per_second=48_000
    )


async def said_by(answer: Answer) -> list[AnswerEvent]:
    said: list[AnswerEvent] = []
    while not said or not isinstance(said[-1], AnswerEnd):
        said.append(await answer.next())
    await answer.stop()
    return said


async def test_an_answer_starts_with_enough_sound_to_last_until_the_next() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 12), seconds=0.002))
    parts = replace(parts, services=replace(parts.services, vocoder=DroppingVoices()))
    answer = single_answer(parts)
    answer.adopt()
    while not isinstance(first := await answer.next(), AnswerSound):
        pass
    assert first.seconds >= MIN_START_SECONDS
    await answer.stop()
    parts.services.workers.close()


async def test_an_answer_shorter_than_that_is_still_said() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 1)))
    parts = replace(parts, services=replace(parts.services, vocoder=DroppingVoices()))
    said = await said_by(single_answer(parts))
    assert sum(one.seconds for one in said if isinstance(one, AnswerSound)) > 0
    parts.services.workers.close()


class Late(Voice):
    """What is pushed first gives no sound."""

    _first = True

    def push(self, tokens: Sequence[int]) -> np.ndarray:
        whole = super().push(tokens)
        first, self._first = self._first, False
        return whole[:0] if first else whole


@dataclass
class Voices:
    """Every stream is a voice of one kind."""

    kind: type[Voice]

    def stream(self, voice: str, speed: float = 1.0) -> Voice:
        return self.kind(voice, speed)


def spoken_by(kind: type[Voice]) -> ModelParts:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 12), seconds=0.002))
    return replace(parts, services=replace(parts.services, vocoder=Voices(kind)))


async def test_no_piece_of_sound_is_empty_and_no_token_is_lost() -> None:
    parts = spoken_by(Late)
    sounds = [one for one in await said_by(single_answer(parts)) if isinstance(one, AnswerSound)]
    assert all(one.data for one in sounds)
    assert sum(one.tokens for one in sounds) == 12 * 5
    parts.services.workers.close()


class Slow(Voice):
    """Takes 100 ms, however little it is given."""

    def push(self, tokens: Sequence[int]) -> np.ndarray:
        time.sleep(0.1)
        return super().push(tokens)


async def test_a_slow_voice_starts_with_enough_sound_to_last_until_its_next() -> None:
    parts = spoken_by(Slow)
    answer = single_answer(parts)
    while not isinstance(first := await answer.next(), AnswerSound):
        pass
    assert first.seconds > 1.5 * GROUP_SECONDS
    await answer.stop()
    parts.services.workers.close()


async def test_an_answer_starts_with_more_sound_while_others_are_being_spoken() -> None:
    parts = spoken_by(Voice)
    workers = parts.services.workers
    for _ in range(40):
        await workers.run_long(0, time.sleep, 0.02)  # what a job of this parts takes
    others = [asyncio.create_task(workers.run_long(1e12, time.sleep, 0.02)) for _ in range(30)]
    answer = single_answer(parts)
    while not isinstance(first := await answer.next(), AnswerSound):
        pass
    assert first.seconds > 3 * GROUP_SECONDS
    await answer.stop()
    await asyncio.gather(*others)
    workers.close()


@dataclass
class NamedVoices:
    """Voices that note in `order` whose sound is made."""

    name: str
    order: list[str]

    def stream(self, voice: str, speed: float = 1.0) -> Voice:
        name, order = self.name, self.order

        class Noted(Voice):
            def push(self, tokens: Sequence[int]) -> np.ndarray:
                order.append(name)
                return super().push(tokens)

        return Noted(voice, speed)


@pytest.mark.parametrize(
    ("ahead", "expected"),
    [(FIRST_SOUND_SECONDS / 2, ["running", "new"]), (60.0, ["new", "running"])],
    ids=["a gap is near", "enough is sent"],
)
async def test_a_first_sound_gives_way_only_to_one_without_which_there_would_be_a_gap(
    ahead: float, expected: list[str]
) -> None:
    workers = Workers(1)
    clock = StillClock()
    order: list[str] = []

    def answer_of(name: str, engine: ScriptedEngine) -> Answer:
        parts = scripted_parts(engine, workers=workers, clock=clock)
        services = replace(parts.services, vocoder=NamedVoices(name, order))
        answer = single_answer(replace(parts, services=services))
        answer.adopt()
        return answer

    engine = ScriptedEngine(answer=lambda prompt: woven("x", 60), seconds=0.002)
    running = answer_of("running", engine)
    while not isinstance(await running.next(), AnswerSound):
        pass
    engine.gate = asyncio.Event()
    await asyncio.sleep(0.01)  # the engine stands at the gate: its pace is 2 ms
    release = threading.Event()
    held = asyncio.create_task(workers.run_long(-1.0, release.wait))
    await until(lambda: workers.waiting() == 0)
    order.clear()
    running.progress.playback.send(ahead, clock())
    new = answer_of("new", ScriptedEngine(answer=lambda prompt: woven("x", 60)))
    await until(lambda: workers.waiting() == 1)
    engine.gate.set()
    await until(lambda: workers.waiting() == 2)
    release.set()
    await until(lambda: len(order) >= 2)
    assert order[:2] == expected
    await held
    await running.stop()
    await new.stop()
    workers.close()


async def test_text_comes_before_the_sound_that_it_stands_before_in_the_stream() -> None:
    parts = scripted_parts(
        ScriptedEngine(answer=lambda prompt: woven("ten letters", 6), seconds=0.001)
    )
    said = await said_by(single_answer(parts))
    kinds = [type(one) for one in said]
    assert kinds.index(AnswerText) < kinds.index(AnswerSound)
    assert kinds[-1] is AnswerEnd
    parts.services.workers.close()


async def test_an_answer_without_its_end_id_was_cut() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 3)[:-2]))
    over = (await said_by(single_answer(parts)))[-1]
    assert over == AnswerEnd("max_output_tokens")
    parts.services.workers.close()


async def test_an_answer_that_nobody_asked_for_makes_its_beginning_and_waits() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 100), seconds=0.0005))
    answer = single_answer(parts)
    while answer.progress.made < SPECULATION_SECONDS:
        await answer.next()
    await asyncio.sleep(0.3)  # long enough for all of it, at the engine's pace
    assert (
        answer.progress.made < SPECULATION_SECONDS + 3
    )  # what one call of the vocoder may be given
    answer.adopt()
    said = await said_by(answer)
    assert sum(one.tokens for one in said if isinstance(one, AnswerSound)) > 250
    parts.services.workers.close()
