"""Which of a session's answers are in a hurry, in simulated time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from asking import asking
from live_talk import Talk
from scripted import ScriptedEngine, scripted_parts, woven
from simulated_time import SimulatedClock, SteppedExecutor, simulate

from aqaa.server.answering.answer import Answer
from aqaa.server.answering.answer_events import AnswerEnd
from aqaa.server.compute.executor import Job
from aqaa.server.compute.model import Work
from aqaa.server.observe.logs import response_id
from aqaa.server.session.listener import ANSWER_SECONDS, Listener
from aqaa.server.urgency import Kind

T = TypeVar("T")

ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
ASIDE = {"conversation": "none", "input": [ASKED]}
PLAYED = 2.0  # seconds of sound


class Orders(SteppedExecutor):
    """Keeps what kinds of work it was given, by answer."""

    def __init__(self, clock: SimulatedClock) -> None:
        super().__init__(clock)
        self.kinds = defaultdict[str, set[Kind]](set)

    def submit(self, work: Work[T], kind: Kind, deadline: float | None = None) -> Job[T]:
        self.kinds[response_id.get()].add(kind)
        return super().submit(work, kind, deadline)


@asynccontextmanager
async def talking(orders: Orders) -> AsyncIterator[Talk]:
    """A conversation whose answers are 1.7 s long."""
    orders.compute_on_loop()
    clock = SimulatedClock()
    engine = ScriptedEngine(lambda prompt: woven("hello there", 14), seconds=0.002)
    talk = Talk(scripted_parts(engine, clock=clock, executor=orders), clock)  # type: ignore[arg-type]
    yield talk
    await talk.close()


def test_of_answers_that_are_asked_for_at_once_one_is_in_a_hurry() -> None:
    async def kinds() -> list[set[Kind]]:
        orders = Orders(SimulatedClock())
        async with talking(orders) as talk:
            for _ in range(3):
                await talk.send("response.create", response=ASIDE)
            await talk.until("response.done", 3)
            names = [x.response.id for x in talk.events if x.type == "response.created"]
        return [orders.kinds[name] for name in names]

    heard, *others = simulate(kinds())
    assert Kind.LIVE in heard
    for kinds_of_other in others:
        assert Kind.BULK in kinds_of_other
        assert Kind.LIVE not in kinds_of_other, "nor once its sound has begun"


def test_the_conversations_answer_waits_for_no_other() -> None:
    async def kinds() -> set[Kind]:
        orders = Orders(SimulatedClock())
        async with talking(orders) as talk:
            for _ in range(3):
                await talk.send("response.create", response=ASIDE)
            await talk.send("conversation.item.create", item=ASKED)
            await talk.send("response.create")
            await talk.until("response.done", 4)
            *_, name = [x.response.id for x in talk.events if x.type == "response.created"]
        return orders.kinds[name]

    assert Kind.BULK not in simulate(kinds())


def test_a_session_that_ends_leaves_no_answer_that_others_wait_for() -> None:
    async def left() -> set[object]:
        orders, clock = Orders(SimulatedClock()), SimulatedClock()
        orders.compute_on_loop()
        engine = ScriptedEngine(lambda prompt: woven("hello there", 60), seconds=0.002)
        parts = scripted_parts(engine, clock=clock, executor=orders)
        talk = Talk(parts, clock)  # type: ignore[arg-type]
        await talk.send("response.create", response=ASIDE)
        await talk.until("response.output_audio.delta")
        engine.gate = asyncio.Event()
        await talk.send("response.create", response=ASIDE)
        await talk.until("response.created", 2)
        await asyncio.sleep(ANSWER_SECONDS)  # from now on the second may be heard after the first
        await talk.close()
        return set(parts.services.unheard)

    assert simulate(left()) == set()


async def ended(answer: Answer) -> None:
    """Read it to its end, as if so much of it had been sent now."""
    while not isinstance(await answer.next(), AnswerEnd):
        pass
    answer.progress.playback.send(PLAYED, SimulatedClock()())


def test_the_next_is_heard_when_the_first_has_been_played() -> None:
    async def heard_after() -> float:
        clock = SimulatedClock()
        executor = SteppedExecutor(clock)
        executor.compute_on_loop()
        parts = scripted_parts(clock=clock, executor=executor)
        waits = ScriptedEngine(gate=asyncio.Event())
        listener = Listener(clock)
        first = asking(parts)
        second = asking(replace(parts, services=replace(parts.services, engine=waits)))
        for answer in (first, second):
            listener.ask(answer, of_conversation=False)
        await ended(first)
        began = clock()
        listener.leave(first)
        while second.patient:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for answer in (first, second):
            await answer.stop()
        return clock() - began

    assert PLAYED <= simulate(heard_after()) < PLAYED + 0.02


def test_who_goes_on_from_an_answer_waits_a_second_and_not_for_its_end() -> None:
    async def heard_after() -> float:
        clock = SimulatedClock()
        parts = scripted_parts(clock=clock, executor=SteppedExecutor(clock))
        listener = Listener(clock)
        answers = [asking(parts) for _ in range(2)]
        for answer in answers:
            listener.ask(answer, of_conversation=True)
        began = clock()
        assert [answer.patient for answer in answers] == [False, True]
        while answers[1].patient:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for answer in answers:
            await answer.stop()
        return clock() - began

    assert ANSWER_SECONDS <= simulate(heard_after()) < ANSWER_SECONDS + 0.02


def test_an_answer_that_is_stopped_leaves_the_line() -> None:
    async def main() -> None:
        clock = SimulatedClock()
        parts = scripted_parts(clock=clock, executor=SteppedExecutor(clock))
        listener = Listener(clock)
        first, second, third = answers = [asking(parts) for _ in range(3)]
        for answer in answers:
            listener.ask(answer, of_conversation=False)
        listener.leave(second)
        listener.leave(first)
        await asyncio.sleep(ANSWER_SECONDS + 0.01)
        assert second.patient
        assert not third.patient, "nothing of the first was played"
        for answer in answers:
            await answer.stop()

    simulate(main())
