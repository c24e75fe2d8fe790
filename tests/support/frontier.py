"""False ends against delay: what policies make of clips, as rows of a table and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib import rc_context
from matplotlib.figure import Figure
from turn_taking import Heard, Outcome

from aqaa.clients.load_test import percentile

SHORT_SECONDS = 2.5


@dataclass(frozen=True)
class Point:
    """What a policy makes of the clips: a row of the table, a mark of the picture.

    Attributes:
        by: who ends the turns; what has the same `by` is one line of the picture.
        policy: how.
    """

    by: str
    policy: str
    heard: Sequence[Heard]
    outcomes: Sequence[Outcome]

    @property
    def delays(self) -> list[float]:
        """Of the turns that were not cut, ms."""
        return [one.delay_ms for one in self.outcomes if one.delay_ms is not None]

    @property
    def cut(self) -> list[Outcome]:
        """The turns that were."""
        return [one for one in self.outcomes if one.delay_ms is None]

    def cells(self) -> list[str]:
        """Of its row."""
        short = [
            one.delay_ms is None
            for one, clip in zip(self.outcomes, self.heard, strict=True)
            if clip.spoken_seconds < SHORT_SECONDS
        ]
        return [
            f"{self.by}, {self.policy}",
            " / ".join(f"{percentile(self.delays, q):.0f}" for q in (50, 95))
            if self.delays
            else "-",
            share(len(self.cut), len(self.outcomes)),
            share(sum(short), len(short)),
            share(sum(one.taken_back for one in self.cut), len(self.cut)),
        ]


def draw(found: Mapping[str, Sequence[Point]], path: Path) -> None:
    """A picture for each kind of clips: a line for each that ends turns, a mark for each policy."""
    figure = Figure(figsize=(4.5 * len(found), 4), layout="constrained")
    for place, (what, row) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(1, len(found), place)
        for by in dict.fromkeys(point.by for point in row):
            marks = sorted(
                (100 * len(point.cut) / len(point.outcomes), fmean(point.delays))
                for point in row
                if point.by == by and point.delays
            )
            axes.plot(*zip(*marks, strict=True), marker="o", markersize=3, label=by)
        axes.set_title(what, fontsize="medium")
        axes.set_xlabel("turns cut, %")
        axes.set_ylabel("mean delay of the others, ms")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend()
    # Words stay words, and the same numbers give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "aqaa"}):
        figure.savefig(path, metadata={"Date": None})


def share(count: int, of: int) -> str:
    """In per cent, and of how many."""
    return f"{100 * count / of:.1f} % of {of}" if of else "-"
