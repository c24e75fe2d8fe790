"""The training loop of both tokenizers, and the command line that starts it.

Every step is seeded by its number, so an interrupted run draws what a whole one would have.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aqaa.models.bundle import nano_path
from aqaa.models.recipe.schedule import cosine_rate
from aqaa.models.recipe.speech.cache import work_dir

log = logging.getLogger(__name__)
LOG_EVERY, SAVE_EVERY = 50, 250  # steps
CLIP = 1.0  # norm of the gradient


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


def train(
    model: nn.Module,
    losses: Callable[[int, np.random.Generator], dict[str, Tensor]],
    errors: Callable[[int], dict[str, float]],
    run: Run,
    seed: int,
) -> None:
    """Minimise the sum of `losses` (weighted already), or go on from the run's checkpoint.

    Args:
        model: trained in place, and left in evaluation mode.
        losses: of a step, drawn from its generator.
        errors: what to report at a checkpoint, after a step.
        run: how long, and where the checkpoint is.
        seed: of the draw.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint, first = run.checkpoints / "checkpoint.pt", 0
    if checkpoint.exists():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    mean: dict[str, float] = {}
    began = time.monotonic()
    for step in range(first, run.schedule.steps):
        model.train()
        parts = losses(step, np.random.default_rng([seed, step]))
        for group in optimiser.param_groups:
            group["lr"] = run.schedule.learning_rate(step)
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        for name, part in parts.items():
            mean[name] = mean.get(name, float(part.detach())) * 0.95 + float(part.detach()) * 0.05
        done = step + 1
        if done % LOG_EVERY == 0:
            shown = " ".join(f"{name} {value:.3f}" for name, value in mean.items())
            pace = (time.monotonic() - began) / LOG_EVERY
            log.info("step %d %s, %.2f s/step", done, shown, pace)
            began = time.monotonic()
        if done % SAVE_EVERY == 0 or done == run.schedule.steps:
            model.eval()
            log.info("step %d errors %s", done, errors(done))
            torch.save(
                {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": done},
                checkpoint,
            )
            began = time.monotonic()
    model.eval()
