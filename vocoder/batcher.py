"""Calls that wait at the same time are run as one: who gets a lane takes along all of its kind."""

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

    Nothing is ever delayed for the sake of company: a caller who finds a free lane runs at once.
    With every lane taken, callers gather; the next free lane runs the one who has waited longest,
    together with all who are `alike` (up to `most`), so that nobody waits for work of another size.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        alike: Callable[[Job], Hashable],
        *,
        lanes: int,
        most: int,
    ) -> None:
        self._run = run
        self._alike = alike
        self._most = most
        self._lanes = threading.BoundedSemaphore(lanes)
        self._lock = threading.Lock()
        self._waiting: list[_Waiting[Job, Result]] = []

    @property
    def waiting(self) -> int:
        """Callers that no lane has taken yet."""
        with self._lock:
            return len(self._waiting)

    def __call__(self, job: Job) -> Result:
        """The job's result, or the error that its run ended in."""
        mine = _Waiting[Job, Result](job, self._alike(job), Future())
        with self._lock:
            self._waiting.append(mine)
        while self._waits(mine):
            with self._lanes:
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
            kind = self._waiting[0].kind
            taken = [other for other in self._waiting if other.kind == kind][: self._most]
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
    kind: Hashable
    future: Future[Result]
