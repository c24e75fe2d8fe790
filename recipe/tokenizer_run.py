"""What both tokenizers' trainings are asked for on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from aqaa.models.bundle import nano_path
from aqaa.recipe.speech.cache import work_dir
from aqaa.recipe.training import Losses, Rates, train

RATES = Rates(peak=1.5e-3, muon=0.01, final=0.02, warmup=100, betas=(0.9, 0.98))


@dataclass(frozen=True)
class Schedule:
    """A tokenizer's training: steps in all, and the step at which its codes enter the path."""

    steps: int
    codes_from: int


@dataclass(frozen=True)
class Run:
    """What a tokenizer's command line asks for."""

    schedule: Schedule
    checkpoints: Path
    tokenizer: Path  # the folder that is exported to

    def train(
        self,
        model: nn.Module,
        blocks: nn.Module,
        losses: Callable[[int], Losses],
        errors: Callable[[int], dict[str, float]],
    ) -> None:
        """The common training loop, as this run asks for it; Muon trains the matrices of `blocks`.

        See `aqaa.recipe.training`.
        """
        train(
            model,
            losses,
            steps=self.schedule.steps,
            checkpoint=self.checkpoints / f"{self.checkpoints.name}.pt",
            rates=RATES,
            matrices=[p for p in blocks.parameters() if p.ndim == 2],
            errors=errors,
        )


def ask(description: str | None, name: str, usual: Schedule) -> Run:
    """The run that the command line wants; `name` is its folder of checkpoints."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=usual.steps)
    parser.add_argument("--codes-from", type=int, default=usual.codes_from)
    parser.add_argument("--out", type=Path, default=nano_path() / "Step-Audio-Tokenizer")
    parser.add_argument("--run", default=name, help="folder of the checkpoint")
    given = parser.parse_args()
    return Run(Schedule(given.steps, given.codes_from), work_dir() / given.run, given.out)
