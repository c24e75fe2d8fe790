"""Spoken conversations with a served nano, as `aqaa bench` holds them: what their users hear.

The server is a process of its own; the clients are this one.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_tables import conversations
from recorded_questions import questions
from serving import serving

from aqaa.clients.load_test import LoadPlan, run

TITLE = "Conversations (nano, server and clients on this machine)"
TURNS = 40  # in all: enough for a 95th percentile
TURNS_EACH = 8  # at least
SESSIONS = (1, 2, 4, 8, 12)  # the last are more than are admitted


def main(sessions: Sequence[int] = SESSIONS, turns: int = TURNS, each: int = TURNS_EACH) -> str:
    """Markdown: how each number of sessions went. Takes about seven minutes."""
    spoken = questions()
    reports = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log") as url:
        for number in sessions:
            plan = LoadPlan(url, "nano", number, max(each, turns // number))
            reports.append(asyncio.run(run(plan, spoken)))
    return conversations("sessions", [(str(report.sessions), report) for report in reports])
