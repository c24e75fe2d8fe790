"""One live conversation beside each kind of abuse: what it hears, with and without.

The conversation is held alone before each kind and beside it, on one server, so that a noisy minute
of the machine meets both.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from abuse import KINDS, abuse
from bench_tables import conversations
from recorded_questions import questions
from serving import serving

from aqaa.clients.load_test import LoadPlan, Report, run

TITLE = "One conversation beside each kind of abuse (nano)"
TURNS = 10  # alone, and beside each kind
# Else those who abuse take the places and the conversation finds none.
PLACES = {"AQAA_MAX_SESSIONS": "64", "AQAA_MIN_SESSIONS": "64"}


def main(turns: int = TURNS) -> str:
    """Markdown: alone, and beside each kind. Takes about eight minutes."""
    spoken = questions()
    alone = Report(1)
    beside = {kind: Report(1) for kind in KINDS}
    done = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log", environment=PLACES) as url,
    ):
        for seed, (kind, report) in enumerate(beside.items()):
            plan = LoadPlan(url, "nano", 1, turns, seed=seed)
            alone.add(asyncio.run(run(plan, spoken)))
            with abuse(url, kind) as counts:
                report.add(asyncio.run(run(plan, spoken)))
            done.append(f"{kind.replace('_', ' ')}: {counts['rounds']} rounds")
    rows = [
        ("alone", alone),
        *((kind.replace("_", " "), report) for kind, report in beside.items()),
    ]
    return f"Done meanwhile: {'; '.join(done)}.\n\n{conversations('beside', rows)}"
