"""Calls that wait at the same time are run as one batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Batcher(Generic[Job, Result]):
    """A function of many jobs that threads call with one job each.

    At most `max_parallel` batches run at a time. A caller runs at once if it may, so no job is
    delayed to fill a batch. Otherwise callers wait; the next batch is the job that has waited
    longest and every waiting job of its shape, up to `max_batch`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        shape_of: Callable[[Job], Hashable],
        *,
        max_parallel: int,
        max_batch: int,
    ) -> None:
        self._run = run
        self._shape_of = shape_of
        self._max_batch = max_batch
        self._free = threading.BoundedSemaphore(max_parallel)
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[Job, Result]] = []

    @property
    def waiting(self) -> int:
        """Callers whose batch has not begun."""
        with self._lock:
            return len(self._waiting)

    def __call__(self, job: Job) -> Result:
        """The job's result, or the error that its run ended in."""
        mine = _Waiting[Job, Result](job, self._shape_of(job), Future())
        with self._lock:
            self._waiting.append(mine)
        while self._waits(mine):
            with self._free:
                self._settle(self._take(mine))
        return mine.future.result()

    def _waits(self, mine: _Waiting[Job, Result]) -> bool:
        with self._lock:
            return mine in self._waiting

    def _take(self, mine: _Waiting[Job, Result]) -> list[_Waiting[Job, Result]]:
        """Those whose turn it is; none if somebody else has run `mine` meanwhile."""
        with self._lock:
            if mine not in self._waiting:
                return []
            shape = self._waiting[0].shape
            taken = [other for other in self._waiting if other.shape == shape][: self._max_batch]
            self._waiting = [other for other in self._waiting if other not in taken]
            return taken

    def _settle(self, taken: Sequence[_Waiting[Job, Result]]) -> None:
        if not taken:
            return
        try:
            results = self._run([one.job for one in taken])
        except BaseException as error:  # even a Ctrl-C must not leave the others waiting
            for one in taken:
                one.future.set_exception(error)
        else:
            for one, result in zip(taken, results, strict=True):
                one.future.set_result(result)


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Job, Result]):
    job: Job
    shape: Hashable
    future: Future[Result]
