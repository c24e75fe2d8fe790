"""How long the next sound of an answer will take, from how the last came."""

from __future__ import annotations

import pytest

from aqaa.server.answering.start_gate import CHUNK_COST_GROWTH, StartGate


def test_a_voice_that_lacks_groups_waits_for_as_many_as_it_had() -> None:
    gate = StartGate()
    for tenth in range(4):
        gate.decoded(tenth / 10)
    gate.vocoded(4, took=0.0)
    assert gate.until_next() == pytest.approx(4 * 0.1)


def test_groups_that_are_there_already_are_not_waited_for() -> None:
    gate = StartGate()
    for tenth in range(7):
        gate.decoded(tenth / 10)
    gate.vocoded(4, took=0.0)
    assert gate.until_next() == pytest.approx(0.1)


def test_the_voice_takes_its_time_though_all_groups_are_there() -> None:
    gate = StartGate()
    for _ in range(20):
        gate.decoded(0.0)
    gate.vocoded(1, took=0.1)
    gate.vocoded(1, took=0.2)
    assert gate.until_next() == pytest.approx(CHUNK_COST_GROWTH * 0.2)


def test_a_single_group_tells_no_pace() -> None:
    gate = StartGate()
    gate.decoded(7.0)
    gate.vocoded(1, took=0.0)
    assert gate.until_next() == 0.0
