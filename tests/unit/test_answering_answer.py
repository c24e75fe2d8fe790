"""One answer from prompt to sound: what order and amount things come in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
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


class Orders(Workers):
    """Keeps the deadlines of its long jobs."""

    def __init__(self) -> None:
        super().__init__(1)
        self.deadlines: list[float] = []

    async def run_long(self, deadline: float, *job: Any, **named: Any) -> Any:
        self.deadlines.append(deadline)
        return await super().run_long(deadline, *job, **named)


async def test_a_first_sound_gives_way_to_one_without_which_there_would_be_a_gap() -> None:
    workers = Orders()
    parts = scripted_parts(
        ScriptedEngine(answer=lambda prompt: woven("x", 60), seconds=0.002), workers=workers
    )
    began = parts.services.clock()
    answer = single_answer(parts)
    answer.adopt()
    while not isinstance(first := await answer.next(), AnswerSound):
        pass
    assert workers.deadlines[0] >= began + FIRST_SOUND_SECONDS
    answer.progress.playback.send(first.seconds, now := parts.services.clock())
    while not isinstance(await answer.next(), AnswerEnd):
        pass
    assert now + first.seconds in workers.deadlines
    await answer.stop()
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
