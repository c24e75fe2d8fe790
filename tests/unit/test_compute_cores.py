"""Threads follow what the process may use, and keep what they were given."""

from __future__ import annotations

import asyncio
import os
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from aqaa.server.compute.cores import available_cores
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import work_of
from aqaa.server.compute.torch_threads import set_torch_threads
from aqaa.server.urgency import Kind


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)],
)
def test_cores_are_those_of_the_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("250000", 3), ("-1", 64)])
def test_an_older_kernels_control_group_counts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert available_cores(tmp_path) == cores


def test_cores_are_no_more_than_the_affinity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cores(tmp_path) == 2  # and without any control group


async def test_another_threads_number_of_torch_threads_is_not_the_executors() -> None:
    """The embedded engine's threads set 1, which is the default of all threads that come later."""
    before = torch.get_num_threads()
    executor = Executor(2, on_thread_start=partial(set_torch_threads, 3))
    await executor.run(work_of(int), Kind.FIRST)  # a thread has begun
    other = threading.Thread(target=torch.set_num_threads, args=(1,))
    other.start()
    other.join()
    counts = await asyncio.gather(
        *(executor.run(work_of(torch.get_num_threads), Kind.FIRST) for _ in range(8))
    )
    await asyncio.to_thread(executor.close)
    torch.set_num_threads(before)
    assert counts == [3] * 8
