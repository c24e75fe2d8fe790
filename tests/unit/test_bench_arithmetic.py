"""What the benchmarks compute beside their measurements: tables, hesitating speech, plans."""

from __future__ import annotations

import base64
import json
import random

import numpy as np
import pytest
from bench_tables import conversations, markdown
from paced_clients import Measured, append_with, appends, table, verdict
from paced_parts import (
    ANSWER,
    AUDIO,
    FIRST_CHUNK_SECONDS,
    LATER_CHUNK_SECONDS,
    PacedVoice,
    due,
    first_sound_due,
)
from recorded_questions import LEAST_PAUSE, LONGEST_PAUSE, hesitating

from aqaa.clients.load_test import Report
from aqaa.clients.turn import SpokenAnswer
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.answering.start_gate import StartGate
from aqaa.server.compute.chunk_delays import ChunkDelays

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


def planned_chunks() -> list[tuple[float, float]]:
    """Of an answer that only models delay: when each chunk is there, and its seconds."""
    voice, gate = PacedVoice(), StartGate(ChunkDelays(lambda: 0.0))
    audio = [(due(n), token) for n, token in enumerate(ANSWER) if token >= AUDIO]
    groups = [audio[n : n + GROUP_TOKENS] for n in range(0, len(audio), GROUP_TOKENS)]
    chunks, free = [], 0.0
    for number, group in enumerate(groups, start=1):
        gate.decoded(group[-1][0])
        voice.feed([token for _, token in group])
        while (chunk := voice.due(final=number == len(groups))) is not None:
            count, first = chunk
            took = FIRST_CHUNK_SECONDS if first else LATER_CHUNK_SECONDS
            free = max(free, group[-1][0]) + took
            gate.vocoded(count, took)
            chunks.append((free, count * GROUP_SECONDS))
            voice.take(count)
            if len(chunks) == 1:
                wait = gate.wait(count * GROUP_SECONDS, 0.03)
                assert wait == 0.0, "or the first sound comes later"
    return chunks


def test_a_paced_answer_starts_with_its_first_chunk_and_is_planned_without_a_gap() -> None:
    chunks = planned_chunks()
    assert first_sound_due() == pytest.approx(chunks[0][0])
    until = chunks[0][0]
    for there, seconds in chunks:
        assert there <= until - 0.1 or there == chunks[0][0]
        until += seconds
    assert until - chunks[0][0] == pytest.approx(3.0)


def test_ids_are_due_at_the_pace_of_an_opening() -> None:
    assert due(69) - due(0) == pytest.approx(1.0)


def test_sound_goes_out_in_appends_of_100_ms_the_last_filled_up() -> None:
    messages = [json.loads(message) for message in appends(np.full(6000, 0.5, np.float32))]
    sounds = [np.frombuffer(base64.b64decode(m["audio"]), "<i2") for m in messages]
    assert [sound.size for sound in sounds] == [2400, 2400, 2400]
    assert np.count_nonzero(np.concatenate(sounds)) == 6000


def test_the_append_that_ends_a_turn_is_the_one_that_brought_its_last_sound() -> None:
    assert [append_with(end) for end in (1, 49, 51, 100, 101, 149, 2000)] == [1, 1, 1, 1, 2, 2, 20]


def test_the_goal_is_met_up_to_the_last_row_before_a_bad_one() -> None:
    good = [Measured(n, added=[5.0] * 100) for n in (1, 50)]
    late = Measured(100, added=[5.0] * 90 + [50.0] * 10)
    better_by_chance = Measured(200, added=[5.0])
    assert "met up to 50 sessions" in verdict([*good, late, better_by_chance])
    assert "met up to 1 sessions" in verdict([good[0], Measured(50, added=[5.0], broken=1)])
    assert "met up to 1 sessions" in verdict([good[0], Measured(50, added=[5.0], lost=1)])
    assert "met by none" in verdict([Measured(1)])


def test_a_row_of_many_sessions_tells_each_number_under_its_head() -> None:
    row = Measured(
        200, added=[1.0, 3.0], turns=7, broken=1, lost=2, underruns=3, stall_ms=4.4,
        client_stall_ms=5.6, session_bytes=123_456, cpu_wait=0.125, cores=0.5, client_cores=0.25,
    )  # fmt: skip
    head, _, cells = table([row]).split("\n")
    told = dict(zip(head.strip("| ").split(" | "), cells.strip("| ").split(" | "), strict=True))
    assert told == {
        "sessions": "200",
        "turns": "7",
        "broken": "1",
        "connections lost": "2",
        "underruns": "3",
        "added, ms p50 / p99": "2 / 3",
        "loop stall, ms": "4",
        "clients' stall, ms": "6",
        "loop without a CPU": "12%",
        "memory a session, kB": "123",
        "cores, server": "0.50",
        "cores, clients": "0.25",
    }
