"""One live conversation beside work that nobody listens to live: what it hears, with and without.

The conversation is held alone and beside the work by turns, on one server, so that a noisy minute
of the machine meets both.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_tables import conversations
from bulk_work import ANSWERS, Done, bulk_settings, bulk_work
from recorded_questions import questions
from serving import serving

from aqaa.clients.load_test import LoadPlan, Report, run

TITLE = "One conversation beside bulk work (nano)"
ROUNDS = 4  # of each, alternately
TURNS = 10  # a round
UPLOAD_SECONDS = 36.0  # nano's context of 2,048 ids takes a question of 38 s, not one of 60
ITEM_SECONDS = 60.0  # the most that an item may have; 14.6 MiB


def main(
    rounds: int = ROUNDS,
    turns: int = TURNS,
    upload_seconds: float = UPLOAD_SECONDS,
    item_seconds: float = ITEM_SECONDS,
) -> str:
    """Markdown: alone, and beside the work. Takes about eight minutes."""
    spoken = questions()
    alone, beside = Report(1), Report(1)
    done = Done()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log", environment=bulk_settings()) as url,
    ):

        def work() -> AbstractContextManager[Done]:
            return bulk_work(url, upload_seconds, item_seconds)

        company: list[tuple[Report, Callable[[], AbstractContextManager[Done]]]] = [
            (alone, lambda: nullcontext(Done())),
            (beside, work),
        ]
        for seed in range(rounds):
            plan = LoadPlan(url, "nano", 1, turns, seed=seed)
            for report, others in company:
                with others() as counts:
                    report.add(asyncio.run(run(plan, spoken)))
                done += counts
    table = conversations("conversation", [("alone", alone), ("beside bulk work", beside)])
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(done.items())) or "nothing"
    return (
        f"Bulk work, over and over: a question of {upload_seconds:g} s by REST, {ANSWERS} REST "
        f"answers at once, an inline item of {item_seconds:g} s at 96 kHz. Done meanwhile: "
        f"{kinds}.\n\n{table}"
    )
