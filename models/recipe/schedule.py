"""The learning rate of all trainings: a warm-up and half a cosine."""

from __future__ import annotations

import math


def cosine_rate(step: int, steps: int, peak: float, final: float, warmup: int) -> float:
    """Learning rate: up to `peak` in `warmup` steps, then a half cosine down to `final`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (peak - final) * 0.5 * (1.0 + math.cos(math.pi * done))
