"""Muon, for the matrices of the blocks: fewer tokens to the same loss than AdamW."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz coefficients of Muon (Jordan, 2024): steep at zero, bounded near one.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonalise(update: Tensor) -> Tensor:
    """[N, R, C] matrices with all singular values brought near one, in float32."""
    x: Tensor = update / (update.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    turned = x.shape[1] > x.shape[2]
    if turned:
        x = x.mT
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if turned else x


class Muon:
    """Momentum, orthogonalised; matrices of one shape go through it as one batch."""

    def __init__(self, matrices: list[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(matrix.shape), []).append(matrix)
        self.state = {
            shape: torch.zeros(len(group), *shape) for shape, group in self.groups.items()
        }

    @torch.no_grad()
    def step(self, rate: float, decay: float = 0.02) -> None:
        """One update at learning rate `rate`."""
        for shape, group in self.groups.items():
            gradient = torch.stack([p.grad for p in group if p.grad is not None])
            momentum = self.state[shape]
            momentum.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(momentum, self.momentum))
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.mul_(1 - rate * decay).sub_(change, alpha=rate * scale)
