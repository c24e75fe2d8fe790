"""One training loop for tokenizers and vocoder: resumable, seeded, with a progress bar and log."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from aqaa.recipe.optimiser import Optimiser

log = logging.getLogger(__name__)
Network = TypeVar("Network", bound=nn.Module)
Losses = dict[str, Tensor]  # name -> scalar, already weighted; their sum is minimised
SAVE_EVERY = 200  # steps


@dataclass(frozen=True)
class Rates:
    """How fast is learned: AdamW's rate at its peak, Muon's, and their course.

    Both rise together in `warmup` steps, and fall to the share `final` of their peaks.
    """

    peak: float = 1e-3
    muon: float = 0.0
    final: float = 0.1
    warmup: int = 50
    betas: tuple[float, float] = (0.8, 0.99)


USUAL = Rates()


def cosine_rate(step: int, steps: int, final: float, warmup: int) -> float:
    """The share of the peak at `step`: up to 1 in `warmup` steps, then half a cosine to `final`."""
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * 0.5 * (1.0 + math.cos(math.pi * done))


def train(
    model: nn.Module,
    losses: Callable[[int], Losses],
    *,
    steps: int,
    checkpoint: Path,
    rates: Rates = USUAL,
    matrices: Iterable[nn.Parameter] = (),
    errors: Callable[[int], dict[str, float]] | None = None,
    seed: int = 0,
) -> None:
    """Minimise the sum of `losses(step)`, going on from `checkpoint` if it is there.

    Torch is seeded by the number of every step, so an interrupted run draws what a whole one would
    have. The model is left in evaluation mode.

    Args:
        model: trained in place.
        losses: of the step of this number.
        steps: in all, those before an interruption included.
        checkpoint: the file to go on from, written every `SAVE_EVERY` steps and at the end; it
            holds `model`, `step` and, but where only weights were kept, `optimiser`.
        rates: see `Rates`.
        matrices: the parameters that Muon trains; AdamW trains all others.
        errors: what else to report at a checkpoint, after so many steps.
        seed: of the draws.
    """
    optimiser = Optimiser(
        model, matrices, muon_rate=rates.muon, adam_rate=rates.peak, betas=rates.betas
    )
    begin = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        if "optimiser" in saved:  # weights alone go on with a new one
            optimiser.load_state_dict(saved["optimiser"])
        begin = int(saved["step"])
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    smooth: dict[str, float] = {}
    name = checkpoint.stem
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    with bar:
        task = bar.add_task(name, total=steps, completed=begin)
        for step in range(begin, steps):
            model.train()
            torch.manual_seed(seed * 1_000_003 + step)
            parts = losses(step)
            model.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step(cosine_rate(step, steps, rates.final, rates.warmup))
            for part, value in parts.items():
                smooth[part] = 0.98 * smooth.get(part, value.item()) + 0.02 * value.item()
            line = " ".join(f"{part} {value:.3f}" for part, value in smooth.items())
            done = step + 1
            bar.update(task, completed=done, description=f"{name} {line}")
            if done % SAVE_EVERY == 0 or done == steps:
                _save(checkpoint, model, optimiser, done)
                model.eval()
                found = f", errors {errors(done)}" if errors else ""
                log.info("%s step %d/%d: %s%s", name, done, steps, line, found)
    model.eval()


def between(model: Network, other: Network, share: float) -> Network:
    """A network whose weights are `model`'s but for a `share` of `other`'s.

    Where one was trained on from the other, the middle is better than both (Wortsman et al. 2022,
    "Robust fine-tuning of zero-shot models").
    """
    middle = copy.deepcopy(model)
    with torch.no_grad():
        for weight, toward in zip(middle.parameters(), other.parameters(), strict=True):
            weight.lerp_(toward, share)
    return middle


def _save(checkpoint: Path, model: nn.Module, optimiser: Optimiser, step: int) -> None:
    """Whole or not at all: an interruption leaves the former file."""
    partial = checkpoint.with_suffix(".part")
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    torch.save(state, partial)
    partial.replace(checkpoint)
