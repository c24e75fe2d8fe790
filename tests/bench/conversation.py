"""Spoken conversations with a served nano, as `aqaa bench` holds them: what their users hear."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from serving import serving

from aqaa.clients.client import WIRE_RATE
from aqaa.clients.load_test import LoadPlan, Report, percentile, run
from aqaa.models.bundle import nano_path
from aqaa.server.audio.files import read_audio
from aqaa.server.observe.latency import STAGES

TITLE = "Conversations (nano, server and clients on this machine)"
TURNS = 40  # in all: enough for a 95th percentile
SESSIONS = (1, 4)
QUANTILES = (50, 95)


def main() -> str:
    """Markdown: how each number of sessions went, and the stages of their heard latency."""
    questions = [read_audio(file, WIRE_RATE) for file in sorted(_examples())]
    reports = []
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log") as url:
        for sessions in SESSIONS:
            plan = LoadPlan(url, "nano", sessions, TURNS // sessions)
            reports.append(asyncio.run(run(plan, questions)))
    return "\n\n".join([_outcomes(reports), _stages(reports)])


def _examples() -> list[Path]:
    return list((nano_path() / "examples").glob("*.flac"))


def _outcomes(reports: list[Report]) -> str:
    lines = [
        "| sessions | turns | answered whole | underruns | silent in all, ms | sound, s |",
        "|---|---|---|---|---|---|",
    ]
    for report in reports:
        turns = report.turns
        gap = sum(turn.gap_seconds for turn in turns)
        lines.append(
            f"| {report.sessions} | {report.asked} | {sum(turn.ok for turn in turns)} "
            f"| {sum(turn.gaps for turn in turns)} | {gap * 1e3:.0f} "
            f"| {sum(turn.seconds for turn in turns):.0f} |"
        )
    return "\n".join(lines)


def _stages(reports: list[Report]) -> str:
    columns = [f"{report.sessions} at once, p{q}" for report in reports for q in QUANTILES]
    lines = [
        "Milliseconds from the last sample of speech to the first of the answer, as the client "
        "hears it; beneath, where the server says they went:",
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (1 + len(columns)) + "|",
    ]
    heard = [report.heard() for report in reports]
    for stage in ("heard", *STAGES, "total"):
        values = [
            f"{percentile(of[stage], q):.0f}" if of.get(stage) else "-"
            for of in heard
            for q in QUANTILES
        ]
        lines.append(f"| {stage} | {' | '.join(values)} |")
    return "\n".join(lines)
