"""A minute of mixed work: a server keeps nothing of it. `make soak` does the same for an hour."""

from __future__ import annotations

import os

import pytest
from soaking import soak
from watched_server import watched_server

SECONDS = 60
# In its first minutes asyncio's pool still makes threads on demand, and each has a heap.
MEMORY = 32 * 2**20
THREADS = min(32, (os.cpu_count() or 1) + 4)


@pytest.mark.deep
async def test_mixed_work_leaves_nothing_behind() -> None:
    async with watched_server() as server:
        soaked = await soak(server, SECONDS)
    assert soaked.wrong == []
    assert len(soaked.done) == 5, "not every kind of work was done"
    assert soaked.kept(MEMORY, THREADS) == []
