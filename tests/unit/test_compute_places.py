"""A place is offered where one more conversation is served well; on a clock that tests move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from aqaa.server.compute.model import Model
from aqaa.server.compute.places import (
    LEAST_JOBS,
    WINDOW_SECONDS,
    IdPace,
    Need,
    Places,
    Punctuality,
)
from aqaa.server.compute.plan import BUSY
from aqaa.server.gateway.admission import CapacityError, Gate

MOST = 100
SPOKEN_IDS = 50.0  # in a second of an answer


def nothing(values: Any) -> list[Any]:
    return []


EARS = Model[Any, Any]("ears", nothing)
VOICE = Model[Any, Any]("voice", nothing)


@dataclass
class Machine:
    """What its models take, and how it has kept its promises."""

    cores: int = 2
    voice_on: str = "cpu"
    seconds: dict[Model[Any, Any], float] = field(
        default_factory=lambda: {EARS: 0.01, VOICE: 0.045}
    )
    decoding: float = 0.0
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.punctuality = Punctuality(lambda: self.now)
        self.pace = IdPace(SPOKEN_IDS)

    def offered(self, inside: int = 0, least: int = 1, most: int = MOST) -> int:
        places = Places(
            self.cores,
            [Need(EARS, 10.0, "cpu"), Need(VOICE, 2.0, self.voice_on)],
            lambda model: self.seconds.get(model, 0.0),
            lambda: self.decoding,
            self.punctuality,
            self.pace,
        )
        return places.offered(inside, least, most)

    def works(self, kind: str, *slacks: float) -> None:
        for slack in slacks:
            self.punctuality.done(kind, slack)


def test_as_many_conversations_fit_as_the_cores_have_time_for() -> None:
    assert Machine(cores=10).offered() == int(10 * BUSY / (10 * 0.01 + 2 * 0.045))


@pytest.mark.parametrize(
    ("change", "places"),
    [
        (lambda machine: machine.seconds.update({EARS: 0.03}), 17),  # 10 * 0.7 / 0.39
        (lambda machine: setattr(machine, "decoding", 0.2), 17),
        (lambda machine: machine.seconds.clear(), MOST),  # nothing was measured yet
    ],
)
def test_what_takes_longer_now_leaves_fewer_places(
    change: Callable[[Machine], None], places: int
) -> None:
    machine = Machine(cores=10)
    change(machine)
    assert machine.offered() == places


def test_the_device_with_the_least_time_decides() -> None:
    assert Machine(cores=100, voice_on="cuda:0").offered() == int(BUSY / (2 * 0.045))
    assert Machine(cores=1, voice_on="cuda:0").offered() == int(BUSY / (10 * 0.01))


def test_there_is_one_place_on_the_slowest_machine_and_never_more_than_are_allowed() -> None:
    assert Machine(seconds={EARS: 100.0}).offered() == 1
    assert Machine(cores=1000).offered(most=8) == 8


def test_an_operator_may_promise_places_whatever_is_measured() -> None:
    machine = Machine(seconds={EARS: 100.0})
    assert machine.offered(least=3) == 3
    assert machine.offered(least=3, most=2) == 2


@pytest.mark.parametrize("kind", ["live", "first"])
def test_nobody_else_comes_in_while_deadlines_are_missed_and_until_that_is_forgotten(
    kind: str,
) -> None:
    machine = Machine()
    machine.works(kind, *[1.0] * 8 * LEAST_JOBS, *[-1.0] * LEAST_JOBS)
    assert machine.offered(inside=2) == 2
    machine.now += WINDOW_SECONDS + 1
    assert machine.offered(inside=2) == 7


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
    assert machine.offered(inside=3) == 7


def test_nobody_else_comes_in_while_the_decoder_is_slower_than_speech() -> None:
    machine = Machine()
    for _ in range(500):
        machine.pace.came(1.2 / SPOKEN_IDS)
    assert machine.offered(inside=4) == 4
    for _ in range(500):
        machine.pace.came(0.8 / SPOKEN_IDS)
    assert machine.offered(inside=4) == 7


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
