"""Bounds of time on a machine whose host lets it stand still, now and then for up to a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

HOST_SECONDS: Final = 1.0  # beyond a bound, where measuring anew would cost too much
TRIES: Final = 3


async def least(measure: Callable[[], Awaitable[float]], below: float) -> float:
    """What `measure` tells, measured anew while it is not below: the least of all tries.

    What the host takes comes once. What the product is late by, it is late by every time.
    """
    told = await measure()
    for _ in range(TRIES - 1):
        if told < below:
            break
        told = min(told, await measure())
    return told
