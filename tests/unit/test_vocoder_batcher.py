"""Calls that wait at the same time run as one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from aqaa.vocoder.batcher import Batcher

WAIT = 30.0  # seconds before a hung test is given up; never reached when all is well


class Slow:
    """A batch function whose first run lasts until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = threading.Event()
        self.release = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.batches.append(list(jobs))
        if len(self.batches) == 1:
            self.running.set()
            assert self.release.wait(WAIT)
        if -1 in jobs:
            raise ValueError("a bad job")
        return [job * 10 for job in jobs]


def run_behind_a_slow_one(jobs: Sequence[int], max_batch: int = 8) -> tuple[Slow, list[object]]:
    """Start job 0, let all `jobs` gather while it runs, then release it; results in order."""
    slow = Slow()
    batcher = Batcher[int, int](slow, lambda job: job % 2, max_parallel=1, max_batch=max_batch)
    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        first = pool.submit(batcher, 0)
        assert slow.running.wait(WAIT)
        futures = []
        for count, job in enumerate(jobs, 1):
            futures.append(pool.submit(batcher, job))
            while batcher.waiting < count:  # in the order given
                threading.Event().wait(0.001)
        slow.release.set()
        wait([first, *futures], WAIT)
        return slow, [future.exception() or future.result() for future in futures]


def test_every_caller_gets_the_result_of_its_own_job() -> None:
    _, results = run_behind_a_slow_one([2, 3, 4, 5])
    assert results == [20, 30, 40, 50]


def test_jobs_of_one_shape_that_waited_run_as_one() -> None:
    slow, _ = run_behind_a_slow_one([2, 3, 4, 5])
    assert slow.batches == [[0], [2, 4], [3, 5]]


def test_a_batch_is_no_larger_than_allowed() -> None:
    slow, _ = run_behind_a_slow_one([2, 4, 6], max_batch=2)
    assert slow.batches == [[0], [2, 4], [6]]


def test_an_error_reaches_all_of_its_batch_and_nobody_else() -> None:
    _, results = run_behind_a_slow_one([-1, 2, 3])  # -1 and 3 are odd
    assert isinstance(results[0], ValueError)
    assert isinstance(results[2], ValueError)
    assert results[1] == 20


def test_a_lone_caller_runs_at_once() -> None:
    batcher = Batcher[int, int](
        lambda jobs: [job + 1 for job in jobs], hash, max_parallel=1, max_batch=8
    )
    assert batcher(4) == 5
    with pytest.raises(ValueError, match="refused"):
        Batcher[int, int](_refuse, hash, max_parallel=1, max_batch=8)(4)


def _refuse(jobs: Sequence[int]) -> list[int]:
    raise ValueError("refused")
