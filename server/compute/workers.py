"""Model work off the event loop: a few threads, and whoever is needed first goes first.

Encoders and the vocoder let go of the interpreter while they compute, so threads are enough. Jobs
are taken in the order of their deadlines: the first sound of one answer goes before the tenth
second of another, which is how a small machine serves several conversations without a gap.

A job cannot be stopped for a more urgent one. So long jobs (a chunk of sound, a whole recording)
never have all threads: what a microphone just sent takes a millisecond, and is not to wait for the
hundred of somebody's answer.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar

RECENT = 0.1  # the share of the latest job in the mean of how long they take

P = ParamSpec("P")
T = TypeVar("T")
_Job = tuple[float, int, Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Workers:
    """A pool of threads for one event loop's sessions."""

    def __init__(self, threads: int) -> None:
        self._short: list[_Job] = []
        self._long: list[_Job] = []
        self._most_long = max(1, threads - 1)
        self._long_running = 0
        self._long_takes = 0.0  # seconds, a running mean
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
        """Call `function`, which takes a few milliseconds, in a thread.

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
        return await self._put(self._short, deadline, lambda: function(*args, **kwargs))

    async def run_long(
        self, deadline: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `run`, for what takes longer: a thread is always left to the short jobs."""
        return await self._put(self._long, deadline, lambda: function(*args, **kwargs))

    async def _put(self, jobs: list[_Job], deadline: float, call: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._wake:
            if self._closed:
                raise RuntimeError("the worker pool is closed")
            heapq.heappush(jobs, (deadline, next(self._order), call, future, loop))
            self._wake.notify()
        return await future

    def waiting(self) -> int:
        """Jobs that no thread has taken yet."""
        return len(self._short) + len(self._long)

    def busy_for(self) -> float:
        """About how many seconds a long job would wait that came now and was the least urgent."""
        return self._long_takes * (self._long_running + len(self._long)) / self._most_long

    def close(self) -> None:
        """Stop the threads after the jobs that they are at; waits for them."""
        with self._wake:
            self._closed = True
            self._short.clear()
            self._long.clear()
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._wake:
                while not (jobs := self._due()) and not self._closed:
                    self._wake.wait()
                if self._closed:
                    return
                job = heapq.heappop(jobs)
                self._long_running += jobs is self._long
            began = time.monotonic()
            deliver = _do(job)
            with self._wake:  # before its caller goes on, who must not count its own job
                if jobs is self._long:
                    self._long_running -= 1
                    self._long_takes += RECENT * (time.monotonic() - began - self._long_takes)
            deliver()
            del job, deliver  # or an idle thread would keep a session's objects alive

    def _due(self) -> list[_Job]:
        """The queue whose first job is the next; an empty one if no job may be begun."""
        if not self._long or self._long_running >= self._most_long:
            return self._short
        return self._short if self._short and self._short[0] < self._long[0] else self._long


def _do(job: _Job) -> Callable[[], None]:
    """Run it; what hands its outcome to the caller."""
    _, _, call, future, loop = job
    if future.cancelled():
        return lambda: None
    try:
        return partial(_deliver, loop, future, call(), None)
    except BaseException as error:  # whatever it was is the caller's to judge
        return partial(_deliver, loop, future, None, error)


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
