"""Many spoken conversations at once, in real time, and what their users would have heard."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aqaa.clients.client import connect
from aqaa.clients.detection import TURN_DETECTION, TurnDetectionKind
from aqaa.clients.turn import SpokenAnswer, speak
from aqaa.models.errors import AqaaError, CapacityError, MissingDependencyError

QUANTILES = (50, 95, 99)
STAGGER_SECONDS = 0.7  # mean distance between the starts of sessions, so that they do not march


@dataclass(frozen=True)
class LoadPlan:
    """What to do: `sessions` conversations of `turns` spoken questions each.

    `detection`: the kind of turn detection that the sessions ask for.
    """

    url: str
    model: str
    sessions: int
    turns: int
    api_key: str | None = None
    seed: int = 0
    detection: TurnDetectionKind = TURN_DETECTION


@dataclass
class Report:
    """What came of it. Latencies in milliseconds.

    Attributes:
        sessions: conversations that were tried.
        turns: those that ended with an answer, whole or not.
        failures: what ended each other turn of a conversation that had found a place.
        refused: for each conversation that found no place, the seconds until it was told.
    """

    sessions: int
    turns: list[SpokenAnswer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count what came of the same number of conversations at another time, too."""
        self.turns += other.turns
        self.failures += other.failures
        self.refused += other.refused

    @property
    def asked(self) -> int:
        """Turns that were tried and ended, one way or the other."""
        return len(self.turns) + len(self.failures)

    @property
    def broken(self) -> int:
        """Turns without a whole answer. One with gaps in its sound is whole: see `underruns`."""
        whole = sum(turn.status == "completed" and turn.audio.size > 0 for turn in self.turns)
        return self.asked - whole

    def heard(self) -> dict[str, list[float]]:
        """Samples of heard latency and of each stage that the server told."""
        samples: dict[str, list[float]] = {
            "heard": [1000 * t.heard_after for t in self.turns if t.heard_after is not None]
        }
        for turn in self.turns:
            for stage, ms in turn.stages.items():
                samples.setdefault(stage, []).append(ms)
        return samples

    def summary(self) -> dict[str, object]:
        """The same as plain data, for JSON."""
        return {
            "sessions": self.sessions,
            "turns": self.asked,
            "broken": self.broken,
            "refused_sessions": len(self.refused),
            "ok_fraction": sum(t.ok for t in self.turns) / max(1, self.asked),
            "false_ends": sum(t.false_ends for t in self.turns),
            "taken_back": sum(t.taken_back for t in self.turns),
            "underruns": sum(t.gaps for t in self.turns),
            "underrun_seconds": sum(t.gap_seconds for t in self.turns),
            "audio_seconds": sum(t.seconds for t in self.turns),
            "latency_ms": {
                stage: {f"p{q}": percentile(values, q) for q in QUANTILES}
                for stage, values in self.heard().items()
                if values
            },
            "failures": self.failures,
        }


def percentile(values: Sequence[float], q: int) -> float:
    """The q-th percentile, rounded to a tenth of a millisecond."""
    return round(float(np.percentile(values, q)), 1)


async def run(
    plan: LoadPlan,
    questions: Sequence[NDArray[np.float32]],
    on_turn: Callable[[], None] = lambda: None,
) -> Report:
    """Speak `questions` (mono float32 at the wire rate) in all sessions; what fails is counted."""
    report = Report(plan.sessions)

    async def session(number: int) -> None:
        choice = random.Random(plan.seed * 100_003 + number)
        await asyncio.sleep(number * STAGGER_SECONDS * choice.uniform(0.5, 1.5))
        done = 0
        began = time.monotonic()
        try:
            async with connect(plan.url, model=plan.model, api_key=plan.api_key) as server:
                await server.update_session(
                    audio={"input": {"turn_detection": {"type": plan.detection}}},
                    aqaa={"extensions": ["latency"]},
                )
                while done < plan.turns:
                    turn = await speak(server, questions[choice.randrange(len(questions))])
                    report.turns.append(turn)
                    done += 1
                    on_turn()
                    await asyncio.sleep(turn.seconds)  # hear it out before asking again
        except CapacityError:
            report.refused.append(time.monotonic() - began)
        except AqaaError as error:
            report.failures += [f"session {number}: {error}"] * (plan.turns - done)

    await asyncio.gather(*(session(number) for number in range(plan.sessions)))
    return report


def write_json(report: Report, path: Path) -> None:
    """Write the summary."""
    path.write_text(json.dumps(report.summary(), indent=2) + "\n", encoding="utf-8")


def write_plot(report: Report, path: Path) -> None:
    """Draw the distribution of heard latency and of its stages.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("a plot needs matplotlib: pip install 'aqaa[plot]'") from error
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for stage, values in report.heard().items():
        if values:
            share = np.linspace(0, 100, len(values))
            axes.plot(np.sort(values), share, label=stage, linewidth=3 if stage == "heard" else 1)
    axes.set(xlabel="milliseconds", ylabel="% of turns", title=f"{report.sessions} sessions")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
