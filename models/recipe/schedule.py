"""How long the trainings last, and at what learning rate: one cosine for all of them."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

from aqaa.models.bundle import nano_path
from aqaa.models.recipe.speech.cache import work_dir


def cosine_rate(step: int, steps: int, peak: float, final: float, warmup: int) -> float:
    """Learning rate: up to `peak` in `warmup` steps, then a half cosine down to `final`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Schedule:
    """A tokenizer's training: steps in all, and the step at which its codes enter the path."""

    steps: int
    codes_from: int
    rate: float = 1.5e-3
    warmup: int = 100

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        return cosine_rate(step, self.steps, self.rate, self.rate / 100, self.warmup)


@dataclass(frozen=True)
class Run:
    """What a tokenizer's command line asks for."""

    schedule: Schedule
    checkpoints: Path
    tokenizer: Path  # the folder that is exported to


def ask(description: str | None, name: str, usual: Schedule) -> Run:
    """The run that the command line wants; `name` is its folder of checkpoints."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--codes-from", type=int, default=usual.codes_from)
    parser.add_argument("--out", type=Path, default=nano_path() / "Step-Audio-Tokenizer")
    parser.add_argument("--run", default=name, help="folder of the checkpoint")
    given = parser.parse_args()
    return Run(Schedule(given.steps, given.codes_from), work_dir() / given.run, given.out)
