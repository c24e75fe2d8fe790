"""A place is offered where one more conversation is served well; on a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from aqaa.server.compute.places import (
    LEAST_JOBS,
    WINDOW_SECONDS,
    IdPace,
    Need,
    Places,
    Punctuality,
)
from aqaa.server.compute.waiting import BUSY, Share, conversations_served
from aqaa.server.gateway.admission import CapacityError, Gate

MOST = 100
SPOKEN_IDS = 50.0  # in a second of an answer


@dataclass
class Machine:
    """What its models take, and how it has kept its promises."""

    cores: int = 16
    voice_on: str = "cpu"
    ears: float = 0.01  # seconds of a call
    voice: float = 0.045
    decoding: float = 0.002  # of an id
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.punctuality = Punctuality(lambda: self.now)
        self.pace = IdPace(SPOKEN_IDS)

    def offered(self, inside: int = 0, least: int = 1, most: int = MOST) -> int:
        needs = [
            Need(cost=lambda: self.ears, each_second=10, before_sound=2, device="cpu"),
            Need(cost=lambda: self.voice, each_second=2, before_sound=1, device=self.voice_on),
            Need(cost=lambda: self.decoding, each_second=SPOKEN_IDS, before_sound=25, device="cpu"),
        ]
        places = Places(self.cores, needs, self.punctuality, self.pace)
        return places.offered(inside, least, most)

    def works(self, kind: str, *slacks: float) -> None:
        for slack in slacks:
            self.punctuality.done(kind, slack)


LOAD = 10 * 0.01 + 2 * 0.045 + SPOKEN_IDS * 0.002
CHAIN = 2 * 0.01 + 0.045 + 25 * 0.002


@pytest.mark.parametrize("cores", [1, 2, 4, 16])
def test_places_are_those_from_which_a_first_sound_waits_little_for_the_others(cores: int) -> None:
    places = Machine(cores=cores).offered()
    assert places == conversations_served([Share(LOAD, CHAIN, cores)], MOST)
    assert places == {1: 1, 2: 3, 4: 8, 16: 38}[cores]


@pytest.mark.parametrize(
    "slower",
    [
        lambda machine: setattr(machine, "ears", 0.03),
        lambda machine: setattr(machine, "voice", 0.15),
        lambda machine: setattr(machine, "decoding", 0.006),
    ],
)
def test_what_takes_longer_now_leaves_fewer_places(slower: Callable[[Machine], None]) -> None:
    machine = Machine()
    before = machine.offered()
    slower(machine)
    assert machine.offered() < 0.7 * before


def test_before_anything_was_measured_all_may_come_who_are_allowed() -> None:
    assert Machine(ears=0.0, voice=0.0, decoding=0.0).offered() == MOST


def test_the_device_with_the_least_time_decides() -> None:
    assert Machine(cores=100, voice_on="cuda:0", voice=0.01).offered() == int(BUSY / (2 * 0.01))
    alone = Machine(cores=1, voice=0.0).offered()
    assert Machine(cores=1, voice_on="cuda:0", voice=0.001).offered() == alone


def test_there_is_one_place_on_the_slowest_machine_and_never_more_than_are_allowed() -> None:
    assert Machine(ears=100.0).offered() == 1
    assert Machine(cores=1000).offered(most=8) == 8


def test_an_operator_may_promise_places_whatever_is_measured() -> None:
    machine = Machine(ears=100.0)
    assert machine.offered(least=3) == 3
    assert machine.offered(least=3, most=2) == 2


@pytest.mark.parametrize("kind", ["live", "first"])
def test_nobody_else_comes_in_while_deadlines_are_missed_and_until_that_is_forgotten(
    kind: str,
) -> None:
    machine = Machine()
    machine.works(kind, *[1.0] * 15 * LEAST_JOBS, *[-1.0] * LEAST_JOBS)
    assert machine.offered(inside=2) == 2
    machine.now += WINDOW_SECONDS + 1
    assert machine.offered(inside=2) == 38


def test_much_punctual_hearing_does_not_hide_gaps_in_the_sound() -> None:
    machine = Machine()
    machine.works("first", *[0.2] * 5000)
    machine.works("live", *[-0.1] * LEAST_JOBS)
    assert machine.offered(inside=3) == 3


def test_what_nobody_waits_for_may_be_late_and_a_few_jobs_tell_nothing() -> None:
    machine = Machine()
    machine.works("speculative", *[-9.0] * 100)
    machine.works("bulk", *[-9.0] * 100)
    machine.works("live", *[-0.1] * (LEAST_JOBS - 1))
    assert machine.offered(inside=3) == 38


def test_nobody_else_comes_in_while_the_decoder_is_slower_than_speech() -> None:
    machine = Machine()
    for _ in range(500):
        machine.pace.came(1.2 / SPOKEN_IDS)
    assert machine.offered(inside=4) == 4
    for _ in range(500):
        machine.pace.came(0.8 / SPOKEN_IDS)
    assert machine.offered(inside=4) == 38


def test_whoever_finds_no_place_is_refused_at_once_and_the_others_stay() -> None:
    machine = Machine()
    gate = Gate(MOST, lambda inside: machine.offered(inside))
    with gate.enter(), gate.enter(), gate.enter():
        machine.works("live", *[-1.0] * LEAST_JOBS)
        with pytest.raises(CapacityError, match="all 3 places"), gate.enter():
            pass
        assert gate.inside() == 3
        machine.now += WINDOW_SECONDS + 1
        with gate.enter():
            assert gate.inside() == 4
