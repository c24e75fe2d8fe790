"""What the evaluation found, beside what was asked for."""

from __future__ import annotations

import math
import operator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Bound = Literal[">=", "<="]
_HOLDS = {">=": operator.ge, "<=": operator.le}


CONFIDENCE = 1.96  # of the normal distribution: 95 %


@dataclass(frozen=True)
class Row:
    """One number. `n` is how many answers (or pairs of answers) it is the mean of."""

    what: str
    got: float
    bound: Bound
    asked: float
    n: int
    percent: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is what was asked for; a number that could not be taken is not."""
        return bool(_HOLDS[self.bound](self.got, self.asked))

    def text(self) -> tuple[str, str, str, str, str]:
        """The row in words."""

        def show(value: float) -> str:
            return f"{100 * value:.1f} %" if self.percent else f"{value:.2f}"

        mark = "yes" if self.reached else "no"
        return self.what, f"{self.bound} {show(self.asked)}", show(self.got), str(self.n), mark


@dataclass
class Report:
    """All rows, and every answer that they were made of."""

    model: str
    rows: list[Row] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    def table(self) -> str:
        """The rows as a markdown table."""
        head = ["| what | asked for | measured | n | reached |", "|---|---|---|---|---|"]
        return "\n".join(head + ["| " + " | ".join(row.text()) + " |" for row in self.rows])

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        rows = [asdict(row) | {"reached": row.reached} for row in self.rows]
        return {"model": self.model, "rows": rows, "answers": self.answers}


def half_width(share: float, n: int) -> float:
    """Half the width of the 95 % confidence interval of a share of `n` (Wilson)."""
    spread = math.sqrt(share * (1 - share) / n + CONFIDENCE**2 / (4 * n * n))
    return CONFIDENCE * spread / (1 + CONFIDENCE**2 / n)
