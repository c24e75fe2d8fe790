"""A codebook that learns as a running k-means: nearest by Euclid, moved by its members."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DECAY = 0.99
REVIVE_BELOW = 0.05  # codes used less often than this per batch, on average, are placed anew


class Codebook(nn.Module):
    """`codes` vectors of `width` floats, with straight-through gradients and EMA updates."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(codes, width) / width**0.5)
        self.register_buffer("count", torch.ones(codes))
        self.register_buffer("total", torch.zeros(codes, width))
        self.embed: Tensor  # [codes, width]
        self.count: Tensor  # EMA of how often each was nearest, a batch
        self.total: Tensor  # EMA of the sum of what it was nearest to
        self.total.copy_(self.embed)

    def nearest(self, x: Tensor) -> Tensor:
        """int64 [...]: the nearest code of each vector of x [..., width]."""
        flat = x.detach().reshape(-1, x.shape[-1])
        distance = self.embed.square().sum(1) - 2 * flat @ self.embed.T
        return distance.argmin(1).view(x.shape[:-1])

    def lookup(self, x: Tensor) -> Tensor:
        """`x` with every vector replaced by its nearest code."""
        return F.embedding(self.nearest(x), self.embed)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x quantised (gradients pass straight through), and the commitment; learns if training."""
        ids = self.nearest(x)
        found = F.embedding(ids, self.embed)
        if self.training:
            self._learn(x.detach().reshape(-1, x.shape[-1]), ids.reshape(-1))
        return x + (found - x).detach(), F.mse_loss(x, found)

    @torch.no_grad()
    def _learn(self, x: Tensor, ids: Tensor) -> None:
        counts = torch.bincount(ids, minlength=len(self.count)).to(x.dtype)
        sums = torch.zeros_like(self.total).index_add_(0, ids, x)
        self.count.mul_(DECAY).add_(counts, alpha=1 - DECAY)
        self.total.mul_(DECAY).add_(sums, alpha=1 - DECAY)
        dead = (self.count < REVIVE_BELOW).nonzero()[:, 0]
        if len(dead):
            # Not all at once: a freshly placed code needs a few batches to prove itself.
            dead = dead[torch.randperm(len(dead))[: max(1, len(self.count) // 100)]]
            chosen = x[torch.randint(len(x), (len(dead),))]
            self.count[dead] = 1.0
            self.total[dead] = chosen
        self.embed.copy_(self.total / self.count.clamp(min=1e-5)[:, None])

    @torch.no_grad()
    def place(self, x: Tensor, rounds: int = 12) -> None:
        """Plain k-means on x [N, width], from random members."""
        self.embed.copy_(x[torch.randperm(len(x))[: len(self.embed)]])
        for _ in range(rounds):
            ids = self.nearest(x)
            counts = torch.bincount(ids, minlength=len(self.embed))
            sums = torch.zeros_like(self.embed).index_add_(0, ids, x)
            used = counts > 0
            self.embed[used] = sums[used] / counts[used, None]
            unused = int((~used).sum())
            self.embed[~used] = x[torch.randint(len(x), (unused,))]
        share = torch.bincount(self.nearest(x), minlength=len(self.embed)).to(x.dtype)
        self.count.copy_((share / share.mean()).clamp(min=0.1))
        self.total.copy_(self.embed * self.count[:, None])
