"""One training loop for every part of the vocoder: resumable, seeded, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from aqaa.models.recipe.optimiser import Optimiser
from aqaa.models.recipe.schedule import cosine_rate

Losses = dict[str, Tensor]  # name -> scalar, already weighted; their sum is minimised
SAVE_EVERY = 200  # steps
WARMUP = 50  # steps


def train(
    model: nn.Module,
    losses: Callable[[], Losses],
    *,
    steps: int,
    checkpoint: Path,
    log: Callable[[str], None],
    peak: float = 1e-3,
    final: float = 0.1,
    matrices: Iterable[nn.Parameter] = (),
    muon_peak: float = 0.0,
    seed: int = 0,
) -> None:
    """Minimise the sum of `losses()` for `steps` steps, going on from `checkpoint` if it is there.

    Every step is seeded by its number, so an interrupted run draws what a whole one would have.
    `matrices` are left to Muon at the rate `muon_peak`, all else to AdamW at `peak`; both fall to
    the share `final` of it.
    """
    optimiser = Optimiser(model, matrices, muon_rate=muon_peak, adam_rate=peak, betas=(0.8, 0.99))
    begin = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        begin = int(saved["step"])
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    smooth: dict[str, float] = {}
    model.train()
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    )
    with bar:
        task = bar.add_task(checkpoint.stem, total=steps, completed=begin)
        for step in range(begin, steps):
            torch.manual_seed(seed * 1_000_003 + step)
            parts = losses()
            model.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step(cosine_rate(step, steps, 1.0, final, WARMUP))
            for name, value in parts.items():
                smooth[name] = 0.98 * smooth.get(name, value.item()) + 0.02 * value.item()
            line = " ".join(f"{name} {value:.3f}" for name, value in smooth.items())
            bar.update(task, completed=step + 1, description=f"{checkpoint.stem} {line}")
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                log(f"{checkpoint.stem} step {step + 1}/{steps}: {line}")
                partial = checkpoint.with_suffix(".part")
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step + 1,
                    },
                    partial,
                )
                partial.replace(checkpoint)
    model.eval()
