"""One live conversation beside each kind of abuse: what it hears, with and without.

The conversation is held alone before each kind and beside it, on one server, so that a noisy minute
of the machine meets both. It has its place before the abuse begins, as its users do; whoever comes
then is admitted or refused as the server ships.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import httpx
import psutil
from abuse import KINDS, abuse
from bench_tables import conversations
from recorded_questions import Sound, questions
from serving import cpu_seconds, server_process, serving

from aqaa.clients.load_test import LoadPlan, Report, run

TITLE = "One conversation beside each kind of abuse (nano)"
TURNS = 10  # alone, and beside each kind


def main(turns: int = TURNS) -> str:
    """Markdown: alone, and beside each kind. Takes about eight minutes."""
    spoken = questions()
    alone = Report(1)
    beside = {kind: Report(1) for kind in KINDS}
    done = []
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log") as url,
    ):
        for seed, (kind, report) in enumerate(beside.items()):
            plan = LoadPlan(url, "nano", 1, turns, seed=seed)
            alone.add(asyncio.run(run(plan, spoken)))
            found, counts, cores = asyncio.run(_beside(plan, spoken, kind))
            report.add(found)
            done.append(f"{_words(kind)}: {counts['rounds']} rounds, {cores}")
    rows = [("alone", alone), *((_words(kind), report) for kind, report in beside.items())]
    return (
        f"Done meanwhile, and the cores that server and abuser kept busy: {'; '.join(done)}.\n\n"
        f"{conversations('beside', rows)}"
    )


async def _beside(
    plan: LoadPlan, spoken: list[Sound], kind: str
) -> tuple[Report, Counter[str], str]:
    """What the conversation heard, what was done meanwhile, and the cores it took."""
    talking = asyncio.create_task(run(plan, spoken))
    async with httpx.AsyncClient(base_url=plan.url) as client:
        while not await _talks(client):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    with ExitStack() as company:
        counts = await asyncio.to_thread(company.enter_context, abuse(plan.url, kind))
        server = server_process(plan.url)
        (abuser,) = (p for p in psutil.Process().children() if kind in p.cmdline())
        processes = server, abuser
        began, before = asyncio.get_running_loop().time(), [cpu_seconds(p) for p in processes]
        report = await talking
        took = asyncio.get_running_loop().time() - began
        busy = [(cpu_seconds(p) - b) / took for p, b in zip(processes, before, strict=True)]
        cores = " and ".join(f"{each:.1f}" for each in busy)
    return report, counts, cores


async def _talks(client: httpx.AsyncClient) -> bool:
    """Whether the conversation has its place."""
    told = (await client.get("/metrics")).text
    return re.search(r"^aqaa_active_sessions 1\.0$", told, re.M) is not None


def _words(kind: str) -> str:
    return kind.replace("_", " ")
