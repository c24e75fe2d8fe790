"""One answer from prompt to sound: what order and amount things come in."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from asking import Orders, asking, first_sound, said_by, still, until
from scripted import Samples, ScriptedEngine, Voice, Voices, scripted_parts, woven
from still_clock import StillClock

from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.answering.answer import (
    SPECULATION_SECONDS,
    Answer,
)
from aqaa.server.answering.answer_events import AnswerEnd, AnswerSound, AnswerText
from aqaa.server.answering.start_gate import MIN_START_SECONDS
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import work_of
from aqaa.server.engine.contract import purpose
from aqaa.server.parts import ModelParts
from aqaa.server.urgency import Kind


class Drops(Voice):
    """Each group gives 30 ms of sound."""

    def sound(self, token: int) -> Samples:
        return super().sound(token)[:660]


class Late(Voice):
    """The first group gives no sound."""

    _first = True

    def sound(self, token: int) -> Samples:
        first, self._first = self._first, False
        return super().sound(token)[: 0 if first else None]


class Slow(Voice):
    """A chunk takes 100 ms."""

    def sound(self, token: int) -> Samples:
        time.sleep(0.1)
        return super().sound(token)


def spoken_by(kind: type[Voice], groups: int = 12) -> ModelParts:
    engine = ScriptedEngine(answer=lambda prompt: woven("x", groups), seconds=0.002)
    return scripted_parts(engine, voices=Voices(kind))


async def test_an_answer_starts_with_enough_sound_to_last_until_the_next() -> None:
    parts = spoken_by(Drops)
    answer = asking(parts)
    answer.adopt()
    first = await first_sound(answer)
    assert first.seconds >= MIN_START_SECONDS
    await answer.stop()
    parts.services.executor.close()


async def test_an_answer_shorter_than_that_is_still_said() -> None:
    parts = spoken_by(Drops, groups=1)
    said = await said_by(asking(parts))
    assert sum(one.seconds for one in said if isinstance(one, AnswerSound)) > 0
    parts.services.executor.close()


async def test_no_piece_of_sound_is_empty_and_no_token_is_lost() -> None:
    parts = spoken_by(Late)
    sounds = [one for one in await said_by(asking(parts)) if isinstance(one, AnswerSound)]
    assert all(one.data for one in sounds)
    assert sum(one.tokens for one in sounds) == 12 * 5
    parts.services.executor.close()


async def test_a_slow_voice_starts_with_enough_sound_to_last_until_its_next() -> None:
    parts = spoken_by(Slow)
    answer = asking(parts)
    answer.adopt()
    first = await first_sound(answer)
    assert first.seconds > 1.5 * GROUP_SECONDS
    await answer.stop()
    parts.services.executor.close()


class Busy(Executor):
    """Always has so much to do that is more urgent."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1)
        self.delay_seconds = seconds

    def delay(self, kind: Kind, deadline: float) -> float:
        return self.delay_seconds


async def test_an_answer_starts_with_sound_that_lasts_while_others_go_first() -> None:
    engine = ScriptedEngine(answer=lambda prompt: woven("x", 12), seconds=0.002)
    parts = scripted_parts(engine, executor=Busy(0.5))
    answer = asking(parts)
    answer.adopt()
    assert (await first_sound(answer)).seconds >= 0.5
    await answer.stop()
    parts.services.executor.close()


@dataclass(frozen=True)
class NotedVoices(Voices):
    """Voices that note in `order` whose sound is made."""

    name: str = ""
    order: list[str] = field(default_factory=list)

    def synthesise(self, chunks: Sequence[tuple[Voice, int]]) -> list[Samples]:
        self.order.append(self.name)
        return super().synthesise(chunks)


@pytest.mark.parametrize(
    ("ahead", "first"),
    [(0.1, "running"), (60.0, "new")],
    ids=["a gap is near", "enough is sent"],
)
async def test_a_first_sound_gives_way_only_to_one_without_which_there_would_be_a_gap(
    ahead: float, first: str
) -> None:
    clock = StillClock()
    executor = Executor(1, clock=clock)
    order: list[str] = []

    def answer_of(name: str, engine: ScriptedEngine) -> Answer:
        voices = NotedVoices(name=name, order=order)
        answer = asking(scripted_parts(engine, executor=executor, clock=clock, voices=voices))
        answer.adopt()
        return answer

    engine = ScriptedEngine(answer=lambda prompt: woven("x", 60), seconds=0.002)
    running = answer_of("running", engine)
    await first_sound(running)
    engine.gate = asyncio.Event()
    await still(running)  # the engine stands at the gate
    release = threading.Event()
    held = executor.submit(work_of(release.wait), Kind.LIVE, -1.0)
    await until(lambda: executor.waiting() == 0)
    order.clear()
    running.progress.playback.send(ahead, clock())
    new = answer_of("new", ScriptedEngine(answer=lambda prompt: woven("x", 60)))
    await until(lambda: executor.waiting() == 1)
    engine.gate.set()
    await until(lambda: executor.waiting() == 2)
    release.set()
    await until(lambda: set(order) == {"running", "new"})
    assert order[0] == first
    await held.future
    await running.stop()
    await new.stop()
    executor.close()


async def test_the_engine_is_told_what_its_work_is_for() -> None:
    told: list[Callable[[], Kind]] = []

    def said(prompt: Sequence[int]) -> list[int]:
        told.append(purpose.get())
        return woven("x", 60)

    parts = scripted_parts(ScriptedEngine(answer=said, seconds=0.002))
    answer = asking(parts)
    await answer.next()
    kinds = [told[0]()]
    answer.adopt()
    kinds.append(told[0]())
    answer.progress.playback.send(2.0, parts.services.clock())
    kinds.append(told[0]())
    assert kinds == [Kind.SPECULATIVE, Kind.FIRST, Kind.LIVE]
    await answer.stop()
    ended = weakref.ref(answer)
    del answer
    await until(lambda: gc.collect() >= 0 and ended() is None)  # the engine keeps what it was told
    assert told[0]() is Kind.BULK


async def test_an_answer_that_was_stopped_leaves_without_a_collection_of_garbage() -> None:
    """A collection stops all sessions for as long as it takes to look through what others hold."""
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 60), seconds=0.002))
    gc.disable()
    try:
        answer = asking(parts)
        await answer.next()
        await answer.stop()
        ended = weakref.ref(answer)
        del answer
        await until(lambda: ended() is None)
    finally:
        gc.enable()
    parts.services.executor.close()


class Counted(Voice):
    """Counts its chunks."""

    chunks = 0

    def sound(self, token: int) -> Samples:
        Counted.chunks += 1
        return super().sound(token)


async def test_the_vocoder_is_given_a_chunk_when_one_is_due_and_never_more_than_one_a_job() -> None:
    executor = Orders()
    engine = ScriptedEngine(answer=lambda prompt: woven("x", 12))
    parts = scripted_parts(engine, executor=executor, voices=Voices(Counted))
    Counted.chunks = 0
    await said_by(asking(parts))
    assert Counted.chunks == 12
    assert len(executor.orders) == 12 + 1  # the last is what the resampler still holds
    executor.close()


async def test_a_cancelled_answers_chunk_is_dropped_where_it_waits() -> None:
    executor, gate = Orders(), threading.Event()
    blocking = executor.submit(work_of(gate.wait), Kind.LIVE, 0.0)
    await until(lambda: executor.waiting() == 0)
    executor.submitted.clear()
    parts = scripted_parts(executor=executor, voices=Voices(Counted))
    Counted.chunks = 0
    answer = asking(parts)
    await asyncio.wait_for(executor.submitted.wait(), 30)
    assert executor.waiting()
    await answer.stop()
    assert not executor.waiting()
    gate.set()
    await blocking.future
    executor.close()
    assert Counted.chunks == 0


async def test_text_comes_before_the_sound_that_it_stands_before_in_the_stream() -> None:
    parts = scripted_parts(
        ScriptedEngine(answer=lambda prompt: woven("ten letters", 6), seconds=0.001)
    )
    said = await said_by(asking(parts))
    kinds = [type(one) for one in said]
    assert kinds.index(AnswerText) < kinds.index(AnswerSound)
    assert kinds[-1] is AnswerEnd
    parts.services.executor.close()


async def test_an_answer_without_its_end_id_was_cut() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 3)[:-2]))
    over = (await said_by(asking(parts)))[-1]
    assert over == AnswerEnd("max_output_tokens")
    parts.services.executor.close()


async def test_an_answer_that_nobody_asked_for_makes_its_beginning_and_waits() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 100), seconds=0.0005))
    answer = asking(parts)
    while answer.progress.made < SPECULATION_SECONDS:
        await answer.next()
    await asyncio.sleep(0.3)  # long enough for all of it, at the engine's pace
    assert (
        answer.progress.made < SPECULATION_SECONDS + 3
    )  # what one call of the vocoder may be given
    answer.adopt()
    said = await said_by(answer)
    assert sum(one.tokens for one in said if isinstance(one, AnswerSound)) > 250
    parts.services.executor.close()
