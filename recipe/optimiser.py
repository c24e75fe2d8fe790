"""Muon for matrices, AdamW for all else: less training to the same loss than AdamW alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from aqaa.recipe.precision import in_bfloat16

# Quintic Newton-Schulz coefficients of Muon (Jordan, 2024): steep at zero, bounded near one.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
CLIP = 1.0  # norm of the gradient


def orthogonalise(update: Tensor) -> Tensor:
    """[N, R, C] matrices with all singular values brought near one."""
    x: Tensor = update / (update.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    if in_bfloat16(x.device.type):
        x = x.bfloat16()
    turned = x.shape[1] > x.shape[2]
    if turned:
        x = x.mT
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.mT if turned else x).to(update.dtype)


class Muon:
    """Momentum, orthogonalised; matrices of one shape go through it as one batch.

    A convolution's weight [out, in, width] counts as the matrix [out, in * width].
    """

    def __init__(self, matrices: Iterable[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.flatten(1).shape), []).append(matrix)
        self.state = {
            shape: torch.zeros(len(group), *shape, device=group[0].device)
            for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.02) -> None:
        """One update at learning rate `rate`; matrices without a gradient stay as they are."""
        for shape, group in self.groups.items():
            if group[0].grad is None:
                continue
            gradient = torch.stack([p.grad.flatten(1) for p in group if p.grad is not None])
            momentum = self.state[shape]
            momentum.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(momentum, self.momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * decay).sub_(change.view_as(matrix), alpha=rate * scale)


class Optimiser:
    """Both halves of one model's parameters; their rates rise and fall together."""

    def __init__(
        self,
        model: nn.Module,
        matrices: Iterable[nn.Parameter],
        *,
        muon_rate: float,
        adam_rate: float,
        betas: tuple[float, float],
        decay: float = 0.01,
    ) -> None:
        """Give `matrices` of `model` to Muon, and the rest to AdamW with weight `decay`."""
        chosen = list(matrices)
        ids = {id(p) for p in chosen}
        self._others = [p for p in model.parameters() if id(p) not in ids]
        self._rates = muon_rate, adam_rate
        self.muon = Muon(chosen)
        self.adam = torch.optim.AdamW(self._others, betas=betas, weight_decay=decay, fused=True)

    def step(self, share: float) -> None:
        """One update at this share of the full rates; AdamW's gradient is clipped to norm 1."""
        muon_rate, adam_rate = self._rates
        nn.utils.clip_grad_norm_(self._others, CLIP)
        for group in self.adam.param_groups:
            group["lr"] = adam_rate * share
        self.muon.step(muon_rate * share)
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"muon": self.muon.state, "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.muon.state = state["muon"]
        self.adam.load_state_dict(state["adam"])
