"""How long the next sound of an answer will take, from how the last came."""

from __future__ import annotations

import pytest

from aqaa.server.answering.forecast import VOICE_GROWTH, Forecast


def test_a_voice_that_lacks_groups_waits_for_as_many_as_it_had() -> None:
    forecast = Forecast()
    for tenth in range(4):
        forecast.group(tenth / 10)
    forecast.spoken(4, took=0.0)
    assert forecast.wait() == pytest.approx(4 * 0.1)


def test_groups_that_are_there_already_are_not_waited_for() -> None:
    forecast = Forecast()
    for tenth in range(7):
        forecast.group(tenth / 10)
    forecast.spoken(4, took=0.0)
    assert forecast.wait() == pytest.approx(0.1)


def test_the_voice_takes_its_time_though_all_groups_are_there() -> None:
    forecast = Forecast()
    for _ in range(20):
        forecast.group(0.0)
    forecast.spoken(1, took=0.1)
    forecast.spoken(1, took=0.2)
    assert forecast.wait() == pytest.approx(VOICE_GROWTH * 0.2)


def test_a_single_group_tells_no_pace() -> None:
    forecast = Forecast()
    forecast.group(7.0)
    forecast.spoken(1, took=0.0)
    assert forecast.wait() == 0.0
