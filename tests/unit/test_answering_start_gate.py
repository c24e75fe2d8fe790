"""How long the next sound of an answer will take, from how the last ones came."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import pytest
from paced_parts import AHEAD_SECONDS, FIRST_CHUNK_SECONDS
from scripted import Samples, ScriptedEngine, Voice, Voices, scripted_parts, woven
from simulated_time import SimulatedClock, SteppedExecutor, simulate
from slow_models import FIRST_IDS, Chunked, SlowDecoder
from still_clock import StillClock

from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.answering.answer import Answer, AnswerRequest
from aqaa.server.answering.answer_events import AnswerEnd, AnswerSound
from aqaa.server.answering.start_gate import CHUNK_COST_GROWTH, StartGate
from aqaa.server.compute.chunk_delays import ChunkDelays
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.places import WINDOW_SECONDS
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.parts import ModelParts, output_of
from aqaa.server.protocol.types import PcmFormat


def test_a_voice_that_lacks_groups_waits_for_as_many_as_it_had() -> None:
    gate = StartGate(ChunkDelays(lambda: 0.0))
    for tenth in range(4):
        gate.decoded(tenth / 10)
    gate.vocoded(4, took=0.0)
    assert gate.until_next() == pytest.approx(4 * 0.1)


def test_groups_that_are_there_already_are_not_waited_for() -> None:
    gate = StartGate(ChunkDelays(lambda: 0.0))
    for tenth in range(7):
        gate.decoded(tenth / 10)
    gate.vocoded(4, took=0.0)
    assert gate.until_next() == pytest.approx(0.1)


def test_the_voice_takes_its_time_though_all_groups_are_there() -> None:
    gate = StartGate(ChunkDelays(lambda: 0.0))
    for _ in range(20):
        gate.decoded(0.0)
    gate.vocoded(1, took=0.1)
    gate.vocoded(1, took=0.2)
    assert gate.until_next() == pytest.approx(CHUNK_COST_GROWTH * 0.2)


def test_a_single_group_tells_no_pace() -> None:
    gate = StartGate(ChunkDelays(lambda: 0.0))
    gate.decoded(7.0)
    gate.vocoded(1, took=0.0)
    assert gate.until_next() == 0.0


def test_what_came_late_lately_may_do_so_again() -> None:
    delays = ChunkDelays(lambda: 7.0)
    other = StartGate(delays)
    other.vocoded(3, took=0.06, waited=0.5)  # its first: late behind which?
    other.vocoded(3, took=0.07, waited=0.07)
    other.vocoded(6, took=0.08, waited=0.17)  # a tenth of a second later than the one before
    other.vocoded(6, took=0.08, waited=None)
    gate = ready(delays, took=0.05)
    assert gate.until_next() == pytest.approx(0.15)
    assert gate.wait(made=0.16, busy=0.0) == 0.0
    assert gate.wait(made=0.14, busy=0.0) == pytest.approx(0.01)
    assert gate.until_next(busy=0.06) == pytest.approx(0.16), "one of the two comes between"


def test_what_came_no_later_than_might_be_changes_nothing() -> None:
    delays = ChunkDelays(lambda: 7.0)
    for late in (0.02, 0.04, -0.3):
        delays.came(late)
    assert ready(delays, took=0.05).until_next() == pytest.approx(CHUNK_COST_GROWTH * 0.05)


def test_delays_are_known_but_for_one_in_twenty_and_for_a_while() -> None:
    now = 100.0
    delays = ChunkDelays(lambda: now)
    assert delays.most() == 0.0
    for late in (0.3, 0.2, *[0.1] * 18):
        delays.came(late)
    assert delays.most() == 0.2
    now += WINDOW_SECONDS + 1
    delays.came(-0.1)
    assert delays.most() == 0.0


def test_a_decoder_that_is_hardly_faster_than_its_sound_gains_nothing_by_waiting() -> None:
    waits = []
    for pace in (0.2, 0.8):
        gate = StartGate(ChunkDelays(lambda: 0.0))
        for number in range(6):
            gate.decoded(number * pace * GROUP_SECONDS)
        gate.vocoded(3, took=0.1)
        assert gate.wait(made=0.21, busy=0.0) == 0.0
        waits.append(gate.wait(made=0.19, busy=0.0))
    assert waits == [pytest.approx(0.01), math.inf]


def ready(delays: ChunkDelays, took: float) -> StartGate:
    """One whose next chunk has its groups."""
    gate = StartGate(delays)
    for _ in range(6):
        gate.decoded(0.0)
    gate.vocoded(3, took)
    return gate


class LikeNano(Voice):
    """Chunks of three, three and then six groups; 0.2 s are held back."""

    _sizes = (15, 15, 30)
    _held = round(0.2 * 22_050)

    def due(self, *, final: bool = False) -> tuple[Voice, int] | None:
        size = min(self._sizes[0], len(self._waiting)) if final else self._sizes[0]
        return (self, size) if 0 < size <= len(self._waiting) else None

    def take(self, sound: Samples) -> Samples:
        self._waiting = self._waiting[self._sizes[0] :]
        self._sizes = self._sizes[1:] or self._sizes
        held, self._held = self._held, 0
        return sound[held:]

    def sound(self, token: int) -> Samples:
        return np.tile(super().sound(0), token // 5)


@dataclass(frozen=True)
class Disturbed(Voices):
    """Chunks that take nano's time, each fifth of them four times as long if they are disturbed."""

    kind: type[Voice] = LikeNano
    disturbed: Callable[[], bool] = lambda: False
    count: Iterator[int] = field(default_factory=count)

    def synthesise(self, chunks: Sequence[tuple[Voice, int]]) -> list[Samples]:
        slow = next(self.count) % 5 == 2 and self.disturbed()
        SimulatedClock().now += FIRST_CHUNK_SECONDS * (4 if slow else 1)
        return super().synthesise(chunks)


def asking(parts: ModelParts) -> Answer:
    """An answer that is begun and wanted."""
    asked = AnswerRequest((1, 4), SamplingParams.of(parts.bundle), "joe", 1.0, spoken=True)
    wire = output_of(PcmFormat())
    answer = Answer(parts.services, "key", asked, parts.parser(), wire, bytes_per_second=48_000)
    answer.adopt()
    return answer


async def answers(disturbed: Callable[[float], bool], number: int) -> list[tuple[float, int]]:
    """Of each of so many answers, one each five seconds: when it was heard, and its gaps."""
    clock = SimulatedClock()
    executor = SteppedExecutor(clock)
    executor.compute_on_loop()
    begin = clock()
    voices = Disturbed(disturbed=lambda: disturbed(clock() - begin))
    engine = SlowDecoder(lambda prompt: woven("hello there", 18))
    parts = scripted_parts(engine, clock=clock, executor=executor, voices=voices)
    parts = replace(parts, services=replace(parts.services, ahead_seconds=AHEAD_SECONDS))
    told = []
    for turn in range(number):
        await asyncio.sleep(begin + 5.0 * turn - clock())
        answer = asking(parts)
        playback, heard = answer.progress.playback, 0.0
        while not isinstance(event := await answer.next(), AnswerEnd):
            if isinstance(event, AnswerSound) and event.data:
                heard = heard or clock() - answer.started
                playback.send(event.seconds, clock())
        await answer.stop()
        told.append((heard, playback.gaps))
    return told


def test_among_chunks_that_come_late_now_and_then_an_answer_has_no_gap() -> None:
    told = simulate(answers(lambda now: True, 12))
    assert [gaps for _, gaps in told] == [0] * 12


def test_an_undisturbed_answer_is_heard_with_its_first_chunk_and_soon_after_a_disturbance() -> None:
    alone = [heard for heard, _ in simulate(answers(lambda now: False, 12))]
    assert alone == pytest.approx(alone[:1] * 12)
    after = [heard for heard, _ in simulate(answers(lambda now: now < 15, 12))]
    assert after[1] > alone[1]
    assert after[8:] == pytest.approx(alone[8:])


@dataclass(frozen=True)
class StuckVoices(Voices):
    """The first chunk takes a quarter of a second from `begin` on; the second waits for `free`."""

    clock: StillClock = field(default_factory=StillClock)
    kind: type[Voice] = Chunked
    begin: threading.Event = field(default_factory=threading.Event)
    free: threading.Event = field(default_factory=threading.Event)

    def synthesise(self, chunks: Sequence[tuple[Voice, int]]) -> list[Samples]:
        if chunks[0][1] == FIRST_IDS:
            self.begin.wait()
            self.clock.now += 0.25
        else:
            self.free.wait()
        return super().synthesise(chunks)


async def test_what_is_made_is_enough_once_it_lasts_for_the_rest_of_the_wait() -> None:
    clock = StillClock()
    executor = Executor(1, clock=clock)
    voices = StuckVoices(clock=clock)
    ids = woven("x", 12)
    engine = ScriptedEngine(answer=lambda prompt: ids)
    answer = asking(scripted_parts(engine, clock=clock, executor=executor, voices=voices))
    heard = asyncio.create_task(answer.next())
    async with asyncio.timeout(20):
        while len(answer.progress.ids) < len(ids) - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        voices.begin.set()  # the decoder was much faster
        while not answer.progress.made:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    rest = CHUNK_COST_GROWTH * 0.25 - answer.progress.made
    assert rest > 0
    began = clock.now
    for passed in (0.0, 0.9 * rest):
        clock.now += passed
        await asyncio.sleep(0.05)
        assert answer.progress.timeline.first_sound is None
    async with asyncio.timeout(20):
        while not answer.progress.timeline.first_sound:
            clock.now += 0.01
            await asyncio.sleep(0.01)
    # Where the next chunk's work has begun by then, half of it counts as work that goes first.
    assert answer.progress.timeline.first_sound - began < rest + 0.25 / 2 + 0.1
    voices.free.set()
    await heard
    await answer.stop()
    executor.close()
