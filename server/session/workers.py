"""Model work off the event loop: a few threads, and whoever is needed first goes first.

Encoders and the vocoder let go of the interpreter while they compute, so threads are enough. Jobs
are taken in the order of their deadlines: the first sound of one answer goes before the tenth
second of another, which is how a small machine serves several conversations without a gap.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_Job = tuple[float, int, Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Workers:
    """A pool of threads for one event loop's sessions."""

    def __init__(self, threads: int) -> None:
        self._jobs: list[_Job] = []
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"aqaa-worker-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    async def run(
        self, deadline: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `function` in a thread.

        A job whose caller is cancelled before it begins is never begun; one that has begun runs to
        its end, so whoever is cancelled must let go of the objects that it gave to the job.

        Args:
            deadline: when the result is needed, in seconds of the callers' clock. Past is urgent.
            function: what to call; its exceptions come back to the caller.
            *args: for `function`.
            **kwargs: for `function`.

        Raises:
            RuntimeError: the pool is closed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = (deadline, next(self._order), lambda: function(*args, **kwargs), future, loop)
        with self._wake:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            heapq.heappush(self._jobs, job)
            self._wake.notify()
        return await future

    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._jobs)

    def close(self) -> None:
        """Stop the threads after the jobs that they are at; waits for them."""
        with self._wake:
            self._closed = True
            self._jobs.clear()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                job = heapq.heappop(self._jobs)
            _do(job)
            del job  # or an idle thread would keep a session's objects alive


def _do(job: _Job) -> None:
    _, _, call, future, loop = job
    if future.cancelled():
        return
    try:
        result = call()
    except BaseException as error:  # whatever it was is the caller's to judge
        _deliver(loop, future, None, error)
    else:
        _deliver(loop, future, result, None)


def _deliver(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    result: Any,
    error: BaseException | None,
) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    if not loop.is_closed():
        loop.call_soon_threadsafe(settle)
