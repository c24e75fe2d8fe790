"""Speakers who hesitate beside those who do not: what answers begun in vain cost everybody.

A pause within a question starts an answer on speculation, which is rolled back when the question
goes on. Clean and hesitating speakers take turns on one server, so that a noisy minute of the
machine meets both.
"""

from __future__ import annotations

import asyncio
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import httpx
from bench_tables import conversations
from recorded_questions import hesitating, questions
from serving import serving

from aqaa.clients.load_test import LoadPlan, Report, run

TITLE = "Hesitating speakers (nano)"
SESSIONS = (1, 4)
ROUNDS = 3  # of each kind of speaker, alternately
TURNS = 12  # in all sessions, a round
PAUSES = 3  # in a question
VARIANTS = 3  # of each question, with pauses of other lengths


def main(sessions: Sequence[int] = SESSIONS, rounds: int = ROUNDS, turns: int = TURNS) -> str:
    """Markdown: each number of sessions, clean and hesitating. Takes about six minutes."""
    clean = questions()
    choice = random.Random(0)
    kinds = {
        "clean": clean,
        "hesitating": [hesitating(wave, PAUSES, choice) for wave in clean * VARIANTS],
    }
    rows: list[tuple[str, Report]] = []
    fates: list[Counter[str]] = []
    # Whatever the machine serves well: whom hesitation harms is seen where places are scarce.
    places = {"AQAA_MIN_SESSIONS": str(max(sessions))}
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log", environment=places) as url,
    ):
        for number in sessions:
            reports = {kind: Report(number) for kind in kinds}
            outcomes = {kind: Counter[str]() for kind in kinds}
            for seed in range(rounds):
                for kind, spoken in kinds.items():
                    before = speculations(url)
                    plan = LoadPlan(url, "nano", number, max(1, turns // number), seed=seed)
                    reports[kind].add(asyncio.run(run(plan, spoken)))
                    outcomes[kind] += speculations(url) - before
            rows += [(f"{number}, {kind}", reports[kind]) for kind in kinds]
            fates += [outcomes[kind] for kind in kinds]
    more = {
        f"speculations {fate.replace('_', ' ')}": [str(counts[fate]) for counts in fates]
        for fate in ("hit", "rolled_back", "no_slack")
    }
    return conversations("sessions, speakers", rows, more)


def speculations(url: str) -> Counter[str]:
    """What has become of the answers that were started at a pause, by outcome."""
    text = httpx.get(f"{url}/metrics", timeout=10).text
    found = re.findall(r'^aqaa_speculations_total\{outcome="(\w+)"\} (\S+)$', text, re.M)
    return Counter({outcome: int(float(count)) for outcome, count in found})
