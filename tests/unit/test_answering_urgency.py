"""How urgent an answer's work is, and what makes way for what."""

from __future__ import annotations

import asyncio
import threading

from asking import Orders, asking, asking_in_vain, first_sound, said_by, still, until
from scripted import ScriptedEngine, scripted_parts, woven
from still_clock import StillClock

from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.answering.answer import (
    LOOK_AGAIN_SECONDS,
    MOST_PATIENCE,
    SPECULATION_SECONDS,
    Answer,
)
from aqaa.server.answering.answer_events import AnswerEnd
from aqaa.server.answering.single_answer import single_answer
from aqaa.server.compute.model import work_of
from aqaa.server.dialogue.prompt import UserTurn
from aqaa.server.parts import ModelParts
from aqaa.server.urgency import Kind


async def test_a_chunk_is_as_urgent_as_its_sound_is_needed() -> None:
    executor = Orders()
    engine = ScriptedEngine(answer=lambda prompt: woven("x", 60), seconds=0.002)
    parts = scripted_parts(engine, executor=executor)
    answer = asking(parts)
    while answer.progress.made < SPECULATION_SECONDS:
        await answer.next()
    assert {kind for kind, _ in executor.orders} == {Kind.SPECULATIVE}
    executor.orders.clear()
    answer.adopt()
    await first_sound(answer)
    assert {kind for kind, _ in executor.orders} <= {Kind.FIRST}
    answer.progress.playback.send(2.0, now := parts.services.clock())
    while not isinstance(await answer.next(), AnswerEnd):
        pass
    assert (Kind.LIVE, now + 2.0) in executor.orders
    await answer.stop()
    executor.close()


async def test_an_answer_that_nobody_can_be_listening_for_makes_way_until_somebody_may_be() -> None:
    executor, release = Orders(), threading.Event()
    held = executor.submit(work_of(release.wait), Kind.LIVE, -1.0)
    await until(lambda: executor.waiting() == 0)
    executor.orders.clear()
    answer = asking(scripted_parts(executor=executor))
    answer.adopt(patient=True)
    await until(lambda: executor.waiting() == 1)
    assert executor.orders == [(Kind.BULK, None)]
    answer.hurry()
    assert executor.changes == [Kind.FIRST]
    executor.orders.clear()
    release.set()
    while not isinstance(await answer.next(), AnswerEnd):
        pass
    assert {kind for kind, _ in executor.orders} == {Kind.FIRST}
    await held.future
    await answer.stop()
    executor.close()


async def test_what_is_played_much_later_is_not_made_while_another_answer_has_no_sound() -> None:
    engine, clock = ScriptedEngine(answer=lambda prompt: woven("x", 60)), StillClock()
    parts = scripted_parts(engine, clock=clock)
    playing = asking(parts)
    playing.adopt()
    await first_sound(playing)
    waiting = asking_in_vain(parts)
    playing.progress.playback.send(1.5, clock())
    await still(playing)
    made = playing.progress.made
    assert made < 60 * GROUP_SECONDS
    await waiting.stop()
    clock.now += LOOK_AGAIN_SECONDS
    await until(lambda: playing.progress.made > made)
    await playing.stop()


async def gave_way(parts: ModelParts) -> tuple[Answer, Answer]:
    """An answer that waits for its first sound, and one that makes none for that."""
    waiting = asking_in_vain(parts)
    patient = asking(parts)
    patient.adopt(patient=True)
    await still(patient)
    return waiting, patient


async def test_one_that_nobody_can_be_listening_for_makes_no_sound_while_another_has_none() -> None:
    clock = StillClock()
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 6)), clock=clock)
    waiting, patient = await gave_way(parts)
    assert patient.progress.ids
    assert patient.progress.made == 0
    await waiting.stop()
    clock.now += LOOK_AGAIN_SECONDS
    assert isinstance((await said_by(patient))[-1], AnswerEnd)
    assert patient.progress.made > 0


async def test_one_that_nobody_can_be_listening_for_is_made_all_the_same_after_a_while() -> None:
    clock = StillClock()
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 6)), clock=clock)
    waiting, patient = await gave_way(parts)
    clock.now += MOST_PATIENCE
    assert isinstance((await said_by(patient))[-1], AnswerEnd)
    assert patient.progress.made > 0
    await waiting.stop()


async def test_one_that_gave_way_goes_on_as_soon_as_somebody_may_be_listening() -> None:
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 6)), clock=StillClock())
    waiting, patient = await gave_way(parts)
    assert patient.progress.made == 0
    patient.hurry()  # no time has passed
    await until(lambda: patient.progress.made > 0)
    await patient.stop()
    await waiting.stop()


async def test_one_whose_patience_is_over_is_waited_for_again() -> None:
    silent = ScriptedEngine()
    silent.gate = asyncio.Event()
    parts = scripted_parts(silent)
    answer = asking(parts)
    answer.adopt(patient=True)
    assert answer not in parts.services.unheard
    answer.hurry()
    assert answer in parts.services.unheard
    await answer.stop()
    assert answer not in parts.services.unheard


async def test_one_that_nobody_can_be_listening_for_makes_way_after_its_first_sound_too() -> None:
    executor = Orders()
    parts = scripted_parts(ScriptedEngine(answer=lambda prompt: woven("x", 6)), executor=executor)
    answer = asking(parts)
    answer.adopt(patient=True)
    await first_sound(answer)
    answer.progress.playback.send(2.0, parts.services.clock())
    while not isinstance(await answer.next(), AnswerEnd):
        pass
    assert {kind for kind, _ in executor.orders} == {Kind.BULK}
    answer.hurry()
    assert answer not in parts.services.unheard, "it has its sound"
    await answer.stop()
    executor.close()


async def test_one_that_was_played_before_anybody_could_listen_goes_on_as_if_it_began() -> None:
    executor, clock = Orders(), StillClock()
    engine = ScriptedEngine(answer=lambda prompt: woven("x", 6))
    parts = scripted_parts(engine, executor=executor, clock=clock)
    answer = asking(parts)
    answer.adopt(patient=True)
    await first_sound(answer)
    answer.progress.playback.send(1.0, clock())
    clock.now += 2.0
    answer.hurry()
    assert executor.changes[-1] is Kind.FIRST
    await answer.stop()
    executor.close()


async def test_a_downloads_chunks_are_bulk() -> None:
    executor = Orders()
    parts = scripted_parts(executor=executor)
    turns = [UserTurn(("hi",))]
    async with single_answer(parts, turns, voice="joe", spoken=True) as answer:
        while not isinstance(await answer.next(), AnswerEnd):
            pass
    assert {kind for kind, _ in executor.orders} == {Kind.BULK}
    executor.close()
