"""How long a first sound waits for other conversations: the formula against a queue, and what it
says of machines that were measured."""

from __future__ import annotations

import heapq
import random

import numpy as np
import pytest

from aqaa.server.compute.waiting import BUSY, Share, conversations_served

# Nano on two cores, otherwise idle; what one conversation takes, by its calls' times there.
# An AMD EPYC with AVX-512 and bfloat16 (2026-11-27): four conversations heard their answers as soon
# as one alone, with five one turn in twenty came 0.29 s later.
FAST = Share(load=0.25, chain=0.13, servers=2)
# Another (2026-11-28): with two conversations one turn in twenty came 0.06 s later than alone, with
# three 0.15 s, with four 0.24 s.
SLOWER = Share(load=0.34, chain=0.15, servers=2)
MANY = 1000


def waits_of_queue(busy: float, mean: float, servers: int, count: int = 200_000) -> list[float]:
    """How long each of `count` jobs waits that come at random, `mean` seconds long on average."""
    draw = random.Random(0)
    free = [0.0] * servers  # when each is
    now, waits = 0.0, []
    for _ in range(count):
        now += draw.expovariate(busy * servers / mean)
        begins = max(now, heapq.heappop(free))
        heapq.heappush(free, begins + draw.expovariate(1 / mean))
        waits.append(begins - now)
    return waits


@pytest.mark.parametrize(
    ("servers", "busy"), [(1, 0.3), (1, 0.7), (2, 0.4), (2, 0.6), (4, 0.6), (8, 0.6)]
)
def test_the_wait_is_the_95th_percentile_of_a_queue_of_such_work(servers: int, busy: float) -> None:
    chain, others = 0.15, 10
    share = Share(load=busy * servers / others, chain=chain, servers=servers)
    queue = float(np.percentile(waits_of_queue(busy, chain, servers), 95))
    assert share.wait(others + 1) == pytest.approx(queue, rel=0.15, abs=0.02)


def test_nobody_waits_who_is_alone() -> None:
    assert Share(load=5.0, chain=9.0).wait(1) == 0


def test_two_cores_serve_as_many_as_hear_their_answers_nearly_as_soon_as_one_alone() -> None:
    assert conversations_served([FAST], MANY) == 3, "a fourth would do, a fifth would not"
    assert conversations_served([SLOWER], MANY) == 2
    assert SLOWER.wait(3) == pytest.approx(0.15, abs=0.02)
    assert FAST.fits() > 5, "there is time for its work, and yet it is served badly"


def test_a_processor_that_is_half_as_fast_serves_one() -> None:
    assert conversations_served([Share(load=0.5, chain=0.26, servers=2)], MANY) == 1


def test_sixteen_cores_are_full_when_they_are_busy_and_not_before() -> None:
    share = Share(load=0.25, chain=0.13, servers=16)
    assert conversations_served([share], MANY) == int(16 * BUSY / 0.25)


def test_short_work_may_keep_one_server_busy() -> None:
    card = Share(load=0.008, chain=0.01)
    assert conversations_served([card], MANY) == int(BUSY / 0.008)


def test_the_waits_for_several_devices_add_up() -> None:
    one, other = Share(load=0.05, chain=0.1), Share(load=0.05, chain=0.12)
    alone = min(conversations_served([share], MANY) for share in (one, other))
    assert 1 < conversations_served([one, other], MANY) < alone


def test_where_nothing_was_measured_there_is_room_for_all_who_are_allowed() -> None:
    assert conversations_served([Share(load=0.0, chain=0.0)], 8) == 8
    assert conversations_served([], 8) == 8


def test_where_one_is_too_many_there_is_room_for_none() -> None:
    assert conversations_served([Share(load=1.1, chain=0.1)], 8) == 0
