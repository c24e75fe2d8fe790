"""What the benchmarks compute beside their measurements: tables, hesitating speech, plans."""

from __future__ import annotations

import random

import numpy as np
import pytest
from bench_tables import conversations, markdown
from recorded_questions import LEAST_PAUSE, LONGEST_PAUSE, hesitating

from aqaa.clients.load_test import Report
from aqaa.clients.turn import SpokenAnswer

RATE = 16_000


def spoken_with_quiet_places(*places: float, seconds: float = 4.0) -> np.ndarray:
    """Noise as loud as speech, quieter for 50 ms around each of `places` (seconds)."""
    wave = np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)
    for place in places:
        wave[round((place - 0.025) * RATE) : round((place + 0.025) * RATE)] *= 0.01
    return wave


def silences(wave: np.ndarray) -> list[tuple[int, int]]:
    """The runs of digital silence, 50 ms or more, as [begin, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wave == 0, [0]]).astype(int)))
    runs = zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return [(begin, end) for begin, end in runs if end - begin >= 0.05 * RATE]


def test_a_hesitating_speaker_pauses_at_the_quietest_places_and_says_the_same() -> None:
    wave = spoken_with_quiet_places(1.0, 2.5)
    slow = hesitating(wave, 2, random.Random(1), RATE)
    pauses = silences(slow)
    assert len(pauses) == 2
    for begin, end in pauses:
        assert LEAST_PAUSE <= (end - begin) / RATE <= LONGEST_PAUSE
    (first_begin, first_end), (second_begin, _) = pauses
    assert first_begin / RATE == pytest.approx(1.0, abs=0.03)
    assert (second_begin - first_end + first_begin) / RATE == pytest.approx(2.5, abs=0.03)
    assert np.array_equal(slow[slow != 0], wave[wave != 0])


def test_pauses_are_no_more_than_have_room() -> None:
    wave = spoken_with_quiet_places(seconds=1.6)
    assert 1 <= len(silences(hesitating(wave, 9, random.Random(1), RATE))) <= 2
    short = spoken_with_quiet_places(seconds=0.5)
    assert np.array_equal(hesitating(short, 3, random.Random(1), RATE), short)


def answered(heard_ms: float, **more: float) -> SpokenAnswer:
    return SpokenAnswer(
        status="completed",
        audio=np.ones(2400, np.float32),
        heard_after=heard_ms / 1000,
        stages={"turn_end": heard_ms - 10},
        gaps=int(more.get("gaps", 0)),
        gap_seconds=more.get("gap_seconds", 0.0),
    )


def test_a_row_tells_what_was_heard_what_broke_and_who_was_refused() -> None:
    report = Report(
        3,
        turns=[answered(500), answered(600, gaps=2, gap_seconds=0.25), SpokenAnswer()],
        failures=["session 1: lost"],
        refused=[0.01, 0.03],
    )
    head, _, row = conversations("sessions", [("3", report)], {"more": ["7"]}).split("\n")[2:]
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert (cells["turns"], cells["broken"], cells["underruns"]) == ("4", "2", "2")
    assert cells["refused"] == "2 (told within 30 ms)"
    assert (cells["silent, ms"], cells["heard"]) == ("250", "550 / 595")
    assert (cells["turn_end"], cells["tokenise"], cells["more |"]) == ("540 / 585", "-", "7 |")


def test_a_table_is_markdown() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
