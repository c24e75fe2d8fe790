"""Hundreds of conversations in one gateway whose models only take time: what the gateway adds.

The gateway is a process of its own; the clients are this one. Each sends 100 ms of sound at a time
without a break, asks a question, hears the answer out and asks again.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import paced_parts
from paced_clients import appends, measure, table, verdict
from recorded_questions import questions

TITLE = "Many sessions in one gateway (models replaced by sleeps)"
SESSIONS = (1, 50, 100, 200, 500)
RAMP_SECONDS = 10.0  # within which the sessions begin
SECONDS = 25.0  # that are measured


def main(
    sessions: Sequence[int] = SESSIONS, seconds: float = SECONDS, ramp: float = RAMP_SECONDS
) -> str:
    """Markdown: each number of sessions, each with a fresh server. Takes about four minutes."""
    spoken = [appends(wave) for wave in questions()]
    rows = [asyncio.run(measure(number, spoken, seconds, ramp)) for number in sessions]
    return f"{explanation()}\n\n{table(rows)}\n\n{verdict(rows)}"


def explanation() -> str:
    """What is real and what is not."""
    p = paced_parts
    return (
        "Real: gateway, protocol, voice activity detection, resampling. Not real: the decoder's "
        f"ids come at the 130 B's pace ({p.IDS_PER_SECOND:g} a second, that of an answer's "
        f"opening, after {1000 * p.PREFILL_SECONDS:.0f} ms); a "
        f"batch of a tokenizer is a sleep of {1000 * p.LINGUISTIC_SECONDS:.1f} or "
        f"{1000 * p.SEMANTIC_SECONDS:.1f} ms for each 240 ms, one of the vocoder of "
        f"{1000 * p.FIRST_CHUNK_SECONDS:.0f} ms, later {1000 * p.LATER_CHUNK_SECONDS:.0f} (nano's "
        f"on one core), in {p.THREADS} threads. Speculation is off, so that it is known when the "
        f"first sound is due: {1000 * p.first_sound_due():.0f} ms after the append that ends the "
        "turn was sent. Added: what came on top, as the client saw it. Its own stalls count."
    )
