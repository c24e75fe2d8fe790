"""One executor for all models but the decoder: a few threads, and one rule of what goes first.

Encoders and the vocoder release the interpreter while they compute, so threads are enough. Whatever
waits is ordered by `urgency`. A free thread takes the most urgent call, and with it all calls of
its model and shape that wait; nothing is delayed for company. Work that nobody wants yet is never
in one batch with work that somebody waits for, nor a speculation with a download.

A call cannot be stopped for a more urgent one, and whatever runs beside it takes of its time. So
heavy calls have all threads but two, and speculations and downloads begin only while heavy calls
that somebody waits for leave one of these, or once they are overdue. With three threads or more,
one is always left to what a microphone just sent, and wanted sound does not wait for sound that
nobody wants yet.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from aqaa.server.compute.model import Call, Model, Work
from aqaa.server.urgency import Kind, urgency

T = TypeVar("T")

NEWEST_SHARE = 0.1  # of the latest batch in the running mean of what a call takes


def _nothing(values: Sequence[object]) -> list[None]:
    return [None] * len(values)


# The first step of all work: its own code up to its first call, which is cheap. Work that somebody
# waits for takes this step before anything else, so that all that waits for a model is known.
START: Model[None, None] = Model("start", _nothing, max_batch=64)


class Meter(Protocol):
    """Takes measurements; called from the executor's threads (`observe.metrics.ComputeMetrics`)."""

    def batch(self, model: str, size: int, seconds: float) -> None:
        """A batch of `size` calls took `seconds`."""

    def done(self, kind: str, slack: float) -> None:
        """Work with a deadline is done, `slack` seconds before it was due (or, negative, after)."""


class _Mailbox:
    """Brings calls from any thread to an event loop. All that come at once wake it once: each
    waking costs two system calls, at each of which the threads change places."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], object]] = deque()
        self._told = False  # the loop is, that calls are here

    def post(self, call: Callable[[], object]) -> None:
        self._calls.append(call)  # before the look at `_told`, which `_deliver` clears first
        if not self._told and not self.loop.is_closed():
            self._told = True
            self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._told = False
        while self._calls:
            self.loop.call_soon(self._calls.popleft())  # so that a fault in one hides no other


class Job(Generic[T]):
    """Work that was submitted. Cancel `future` to drop it; what has begun of it runs to its end."""

    def __init__(
        self, work: Work[T], kind: Kind, deadline: float | None, mailbox: _Mailbox
    ) -> None:
        self.future: asyncio.Future[T] = mailbox.loop.create_future()
        self.seconds = 0.0  # that its calls took, their waiting not included
        self.kind = kind
        self.deadline = deadline
        self._work = work
        self._mailbox = mailbox
        self.context = contextvars.copy_context()  # log lines below tell whose work it is

    def due(self, now: float) -> float:
        """Its urgency; work without a deadline counts from the step that begins now."""
        return urgency(self.kind, now if self.deadline is None else self.deadline)

    def advance(self, result: Any) -> Call | None:
        """Run its own code up to its next call; None at its end, whose outcome is delivered."""
        try:
            if isinstance(result, BaseException):
                return self.context.run(self._work.throw, result)
            return self.context.run(self._work.send, result)
        except StopIteration as end:
            outcome: T = end.value
            self._deliver(lambda: self.future.set_result(outcome))
        except BaseException as error:  # whatever it is, whoever submitted the work must know
            self.fail(error)
        return None

    def fail(self, error: BaseException) -> None:
        """It ends in this error."""
        self._deliver(lambda: self.future.set_exception(error))

    def _deliver(self, settle: Callable[[], None]) -> None:
        def unless_dropped() -> None:
            if not self.future.done():
                settle()

        self._mailbox.post(unless_dropped)

    def drop(self) -> None:
        """Cancel it from another thread."""
        self._mailbox.post(self.future.cancel)


class _Entry:
    """A job in the queue; a void one (`job` is None) has left it and is still in its lane."""

    __slots__ = ("call", "due", "job", "order", "shape")

    def __init__(self, job: Job[Any], call: Call, shape: Hashable, due: float, order: int) -> None:
        self.job: Job[Any] | None = job
        self.call: Call | None = call
        self.shape = shape
        self.due = due
        self.order = order

    def __lt__(self, other: _Entry) -> bool:
        return (self.due, self.order) < (other.due, other.order)

    def void(self) -> None:
        self.job = self.call = None


_Lane = tuple[Model[Any, Any], Hashable, Kind]  # model, shape, company


class Executor:
    """A pool of threads for the sessions of one event loop."""

    def __init__(
        self,
        threads: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        meters: Sequence[Meter] = (),
        on_thread_start: Callable[[], None] | None = None,
    ) -> None:
        """Start the threads.

        Args:
            threads: how many.
            clock: that of the deadlines and of what calls take, in seconds.
            meters: take measurements.
            on_thread_start: called first in each thread.
        """
        self._clock = clock
        self._meters = meters
        self._on_thread_start = on_thread_start
        self._most_heavy = max(1, threads - 2)
        self._most_of_both = max(2, threads - 1)
        self._heavy = self._unwanted = 0  # batches that run: heavy wanted ones, unwanted ones
        self._at_work: Counter[Model[Any, Any]] = Counter()  # batches that run, by their model
        self._running: dict[int, float] = {}  # by thread: seconds that its heavy wanted batch takes
        self._lanes: dict[_Lane, list[_Entry]] = {}
        self._entries: dict[Job[Any], _Entry] = {}  # of the jobs that wait
        self._seconds: defaultdict[Model[Any, Any], float] = defaultdict(float)  # a call, a mean
        self._batches: Counter[Model[Any, Any]] = Counter()
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._idle: list[threading.Condition] = []  # of the threads that wait, the latest last
        self._mailbox: _Mailbox | None = None  # of the event loop
        self._waking = False  # one was woken and has not looked for work yet
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, name=f"compute-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work[T], kind: Kind, deadline: float | None = None) -> Job[T]:
        """Have `work` done in the threads.

        Work whose future is cancelled is dropped wherever it waits. A call that has begun runs to
        its end, so whoever cancels must let go of the objects that the work uses.

        Args:
            work: what to do.
            kind: what it is for.
            deadline: when its outcome is needed, in seconds of the clock; None: as soon as nothing
                else is.

        Raises:
            RuntimeError: the executor is closed.
        """
        loop = asyncio.get_running_loop()
        if self._mailbox is None or self._mailbox.loop is not loop:
            self._mailbox = _Mailbox(loop)
        job = Job(work, kind, deadline, self._mailbox)
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is closed")
            self._queue(job, Call(START, None), None)
            self._wake_one()
        job.future.add_done_callback(lambda _: self._leave(job))
        return job

    async def run(self, work: Work[T], kind: Kind, deadline: float | None = None) -> T:
        """As `submit`; returns the outcome. Cancelling it cancels the work."""
        return await self.submit(work, kind, deadline).future

    def change(self, job: Job[Any], kind: Kind, deadline: float | None) -> None:
        """The work is now of another kind, or needed at another time."""
        with self._lock:
            job.kind, job.deadline = kind, deadline
            entry = self._entries.get(job)
            if entry is not None and entry.call is not None:
                call, shape = entry.call, entry.shape
                entry.void()
                self._queue(job, call, shape)
                self._wake_one()

    def waiting(self) -> int:
        """Jobs that wait for a thread."""
        with self._lock:
            return len(self._entries)

    def delay(self, kind: Kind, deadline: float) -> float:
        """About how many seconds a heavy call of such wanted work would wait now for a thread."""
        due = urgency(kind, deadline)
        with self._lock:
            calls = [e.call for e in self._entries.values() if e.due < due and e.call is not None]
            ahead = sum(self._expected(c.model, [c.value]) for c in calls if c.model.heavy)
            running = sum(self._running.values()) / 2  # half of each is done, on average
        return (ahead + running) / self._most_heavy

    def seconds(self, model: Model[Any, Any]) -> float:
        """What the shortest call of this model takes, its share of a batch; 0 before the first."""
        with self._lock:
            return self._seconds.get(model, 0.0)

    def close(self) -> None:
        """Drop what waits and stop the threads after what they are at; waits for them."""
        with self._lock:
            self._closed = True
            for job in self._entries:
                job.drop()
            self._entries.clear()
            self._lanes.clear()
            for idle in self._idle:
                idle.notify()
        for thread in self._threads:
            thread.join()

    # --- with the lock held -----------------------------------------------------------------------

    def _queue(self, job: Job[Any], call: Call, shape: Hashable) -> None:
        lane = (call.model, shape, job.kind.company)
        at_once = call.model is START and job.kind.wanted
        due = -math.inf if at_once else job.due(self._clock())
        entry = _Entry(job, call, shape, due, next(self._order))
        self._entries[job] = entry
        heapq.heappush(self._lanes.setdefault(lane, []), entry)

    def _pick(self) -> tuple[_Lane, list[tuple[Job[Any], Any]]] | None:
        """The most urgent call that may run now, and all that may share its batch."""
        best: _Lane | None = None
        for lane in [*self._lanes]:
            if not self._clean(lane):
                continue
            if not self._may_run(lane):
                continue
            if best is None or self._lanes[lane][0] < self._lanes[best][0]:
                best = lane
        if best is None:
            return None
        batch: list[tuple[Job[Any], Any]] = []
        while len(batch) < best[0].max_batch and self._clean(best):
            entry = heapq.heappop(self._lanes[best])
            assert entry.job is not None
            assert entry.call is not None
            del self._entries[entry.job]
            batch.append((entry.job, entry.call.value))
        self._clean(best)
        return best, batch

    def _wake_one(self) -> None:
        """Have an idle thread look for work. One that was woken already finds this too, and wakes
        the next: all that comes at once costs one change of threads, and is one batch."""
        if self._idle and not self._waking:
            self._waking = True
            self._idle.pop().notify()

    def _may_run(self, lane: _Lane) -> bool:
        model, _, company = lane
        if model.at_once is not None and self._at_work[model] >= model.at_once:
            return False
        if company.wanted and not model.heavy:
            return True
        if self._heavy + self._unwanted >= self._most_of_both:
            return False
        if company.wanted:
            return self._heavy < self._most_heavy
        return self._unwanted < self._most_heavy and (
            self._heavy < self._most_heavy or self._lanes[lane][0].due <= self._clock()
        )

    def _count(self, lane: _Lane, batches: int) -> None:
        """So many more of this lane's batches run."""
        model, _, company = lane
        self._at_work[model] += batches
        self._heavy += batches * (company.wanted and model.heavy)
        self._unwanted += batches * (not company.wanted)

    def _leave(self, job: Job[Any]) -> None:
        """The job's outcome is known, or nobody waits for it any more. Takes the lock."""
        with self._lock:
            entry = self._entries.pop(job, None)
            if entry is not None:
                entry.void()

    def _clean(self, lane: _Lane) -> bool:
        """Take void entries from the lane's head; whether anything is left."""
        heap = self._lanes.get(lane)
        while heap and heap[0].job is None:
            heapq.heappop(heap)
        if not heap:
            self._lanes.pop(lane, None)
        return bool(heap)

    def _expected(self, model: Model[Any, Any], values: Sequence[Any]) -> float:
        """Seconds that a batch of these values takes."""
        return self._seconds[model] * sum(map(model.size_of, values))

    def _measured(self, model: Model[Any, Any], seconds: float) -> None:
        """The shortest call takes so long. The first of all is a slow one: it counts only until the
        second."""
        count = self._batches[model]
        self._batches[model] += 1
        share = max(NEWEST_SHARE, 1 / max(1, count))
        self._seconds[model] += share * (seconds - self._seconds[model])

    # --- the threads ------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._on_thread_start is not None:
            self._on_thread_start()
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Wait for a batch and run it; False once the executor is closed."""
        with self._lock:
            while (picked := self._pick()) is None:
                if self._closed:
                    return False
                idle = threading.Condition(self._lock)
                self._idle.append(idle)
                idle.wait()
                self._waking = False
            lane, batch = picked
            model, _, company = lane
            self._count(lane, 1)
            if any(self._may_run(lane) for lane in self._lanes):
                self._wake_one()  # there is work for another thread
            jobs, values = [job for job, _ in batch], [value for _, value in batch]
            if model.heavy and company.wanted:
                self._running[threading.get_ident()] = self._expected(model, values)
        began = self._clock()
        results = _run(model, jobs[0], values)
        seconds = self._clock() - began
        with self._lock:
            self._running.pop(threading.get_ident(), None)
            self._count(lane, -1)
            self._measured(model, seconds / sum(map(model.size_of, values)))
        if model is not START:
            for meter in self._meters:
                meter.batch(model.name, len(batch), seconds)
        for job, result in zip(jobs, results, strict=True):
            job.seconds += seconds
            # The last call is for this thread, which picks next: each waking costs the others.
            self._advance(job, result, wake=job is not jobs[-1])
        return True

    def _advance(self, job: Job[Any], result: Any, *, wake: bool) -> None:
        """Run the job's own code after a call and queue its next one; `wake` a thread for it."""
        call = None if job.future.done() else job.advance(result)
        if call is not None:
            try:
                shape = call.model.shape_of(call.value)
            except Exception as error:  # the work's own: this thread goes on
                job.fail(error)
                return
            with self._lock:
                if self._closed:
                    job.drop()
                elif not job.future.done():
                    self._queue(job, call, shape)
                    if wake:
                        self._wake_one()
        elif job.deadline is not None:
            now = self._clock()
            for meter in self._meters:
                meter.done(job.kind.value, job.due(now) - now)


def _run(model: Model[Any, Any], first: Job[Any], values: Sequence[Any]) -> Sequence[Any]:
    """The batch's results; the error of a failed run in the place of each."""
    try:
        results: Sequence[Any] = first.context.run(model.run, values)
    except BaseException as error:  # whatever it is, whoever submitted the work must know
        return [error] * len(values)
    if len(results) != len(values):
        return [
            RuntimeError(f"{model.name}: {len(results)} results for {len(values)} values")
        ] * len(values)
    return results
