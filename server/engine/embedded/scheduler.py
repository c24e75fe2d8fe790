"""Runs many sessions on one decoder, the most urgent first, on a few threads.

Each job has a due time, shifted by its kind (`urgency`). A worker takes the job that is due first
and computes one quantum of it: a decoding step, or a chunk of a prompt, so that a long prompt
delays nobody. An id is due `DECODE_LEAD_SECONDS` before its sound is played, so a new answer
overtakes answers that are ahead of their playback. All decoding steps that are due are computed
together (`Step1.step`), but none that nobody wants yet with one that somebody waits for, nor a
download's with a speculation's; and an answer that begins has company only of what is about as
urgent. The ids of one session do not depend, in any bit, on the others in the batch.

Each session keeps the ids that it has computed, with their keys and values. A new job starts after
the longest common prefix. A job is accepted only if the cache has room for all that it may compute;
idle sessions are evicted for that, least recently used first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from aqaa.models.errors import AqaaError, EngineBusyError, EngineDiedError, EngineError
from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.engine.call_mask import CallGrammars
from aqaa.server.engine.contract import MAX_UNREAD_IDS, EngineStats, SamplingParams
from aqaa.server.engine.embedded.sampling import Sampler
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.server.engine.rate import Rate
from aqaa.server.urgency import Kind, urgency

log = logging.getLogger(__name__)

PREFILL_CHUNK_IDS = 32  # ids of a prompt in one quantum
PREFILL_CHUNK_STEPS = 8  # about as many decoding steps as such a chunk takes time for
CACHE_GRAIN_IDS = 256  # cache room is granted in multiples of this
WARM_GROWTH_IDS = 512  # extra room for a prompt that is only warmed, because it will grow
MAX_BATCH = 8  # sessions in one step; more would make each step, and so each gap, longer
SECONDS_PER_ID = GROUP_SECONDS * 3 / 25  # of sound: 10 text ids come with 15 audio ids, 3 groups
NEWEST_STEP = 0.05  # share of the latest step in the mean of what an id takes
DECODE_LEAD_SECONDS = 1.5  # a vocoder's chunk and its look-ahead need half of it
# A first sound waits for 25 ids, and each takes longer in company, nano's by a third for each other
# row. What is due so much later has as much sound ahead, and waits.
ABOUT_AS_URGENT_SECONDS = 0.1

NO_CACHE = torch.empty(0, 0, 0, 0)

END = None
StreamItem = int | AqaaError | None  # an id, a fault, or the end
Outcome = int | EngineError | None  # of a quantum: an id, a fault, or nothing yet


@dataclass(slots=True, eq=False)
class DecodeJob:
    """One warm-up (`params` is None) or one generation.

    Attributes:
        deliver: called in any thread with each id, then with `END` or an error; must not block.
        purpose: tells, in any thread, what it is for now.
        over: nothing more is delivered.
        stopped: cancelled or superseded; ids that are delivered and not read are void.
        computed: prompt ids that this job ran through the decoder.
        reused: prompt ids that the session had computed before.
        made: ids generated.
        due: when the next quantum should be computed, on the clock of `time.monotonic`.
        read: ids that the reader took.
        past: ids that were read before anybody could listen to them.
        last: the newest id; it is not in the cache yet.
        kind: what it was for, when that was asked last.
    """

    prompt: list[int]
    params: SamplingParams | None
    deliver: Callable[[StreamItem], None]
    purpose: Callable[[], Kind]
    over: bool = False
    stopped: bool = False
    computed: int = 0
    reused: int = 0
    made: int = 0
    due: float = 0.0
    read: int = 0
    past: int = 0
    last: int = 0
    kind: Kind = Kind.FIRST
    sampler: Sampler | None = None

    @property
    def paused(self) -> bool:
        """Whether it waits because its reader is too far behind."""
        return self.made - self.read >= MAX_UNREAD_IDS

    @property
    def decodes(self) -> bool:
        """Whether its next quantum is a decoding step."""
        return self.made > 0

    @property
    def urgency(self) -> float:
        """When it was to be computed, by what it is for; the least is the most urgent."""
        return urgency(self.kind, self.due)

    def review(self, now: float) -> None:
        """Ask what it is for now; with it goes when it is due, by when its sound is played.

        That begins with the first sound, and is late by each gap; while nobody could be listening
        none was played. An answer that counted all of this as its delay would make up for it in one
        go, before what others wait for.
        """
        kind, was = self.purpose(), self.kind
        self.kind = kind
        played_now = now - DECODE_LEAD_SECONDS
        if was is Kind.BULK and kind.wanted:
            self.past = self.read
        if kind is Kind.LIVE and was in (Kind.FIRST, Kind.SPECULATIVE):
            ahead = (self.made - self.past) * SECONDS_PER_ID
            self.due = max(self.due, played_now + ahead)
        elif kind is Kind.LIVE or (was is Kind.BULK and kind.wanted):
            self.due = max(self.due, played_now)


@dataclass(slots=True, eq=False)
class _SessionState:
    """What one session key holds. Only the worker that runs it touches `ids` and `cache`."""

    job: DecodeJob | None = None
    running: bool = False
    granted: int = 0
    ids: list[int] = field(default_factory=list)  # those whose keys and values are in `cache`
    cache: Tensor = NO_CACHE


class Scheduler:
    """Owns the worker threads and all sessions. Its methods are thread-safe."""

    def __init__(
        self, model: Step1, capacity: int, workers: int, grammars: CallGrammars | None = None
    ) -> None:
        """Start the threads.

        Args:
            model: the decoder.
            capacity: the cache room of all sessions, in ids.
            workers: how many threads.
            grammars: of the decoder's calls; None: nothing holds them to their schemas.
        """
        self._model = model
        self._grammars = grammars
        self._capacity = capacity
        self._lock = threading.Condition()
        self._sessions: OrderedDict[str, _SessionState] = OrderedDict()  # oldest use first
        self._ready: list[_SessionState] = []
        self._closed = False
        self._granted = 0
        self._rate = Rate()
        self._computed = self._reused = self._generated = 0
        self._generations = self._cancelled = self._evictions = 0
        self._id_seconds = 0.0  # that an id takes, a mean
        default = torch.get_num_threads()
        started = threading.Barrier(workers + 1)
        self._threads = [
            threading.Thread(
                target=self._run_worker, args=(started,), name=f"decoder-{index}", daemon=True
            )
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()
        started.wait()
        torch.set_num_threads(default)  # for all threads to come: a worker's 1 became the default

    def close(self) -> None:
        """End all jobs with `EngineDiedError` and wait for the workers."""
        with self._lock:
            self._closed = True
            for state in self._sessions.values():
                if state.job is not None:
                    self._finish(state, EngineDiedError("the engine was closed"))
            self._sessions.clear()
            self._ready.clear()
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, key: str, job: DecodeJob) -> None:
        """Begin `job` in session `key`; it supersedes a job that runs there.

        Raises:
            EngineDiedError: the scheduler is closed.
            EngineBusyError: sessions with running jobs hold all the room.
        """
        with self._lock:
            if self._closed:
                raise EngineDiedError("the engine is closed: start it again")
            state = self._sessions.get(key) or _SessionState()
            self._grant_room(state, job)
            self._sessions[key] = state
            self._sessions.move_to_end(key)
            self._stop(state)
            state.job = job
            job.due = time.monotonic() - DECODE_LEAD_SECONDS
            self._generations += job.params is not None
            self._make_ready(state)

    def stop(self, key: str, job: DecodeJob | None = None) -> None:
        """Cancel the job of session `key`; with `job`, only if that is the one that runs."""
        with self._lock:
            state = self._sessions.get(key)
            if state is not None and job in (None, state.job):
                self._stop(state)

    def release(self, key: str) -> None:
        """Cancel the job of session `key` and forget what was computed."""
        with self._lock:
            state = self._sessions.pop(key, None)
            if state is not None:
                self._stop(state)
                self._granted -= state.granted

    def taken(self, key: str, job: DecodeJob) -> None:
        """Note that the reader took an id; a paused generation goes on when half are read."""
        with self._lock:
            job.read += 1
            state = self._sessions.get(key)
            if state is None or state.job is not job:
                return
            if job.made - job.read == MAX_UNREAD_IDS // 2:
                # Its sound did not play while it waited, so it is not behind.
                job.due = max(job.due, time.monotonic() - DECODE_LEAD_SECONDS)
                self._make_ready(state)

    def stats(self) -> EngineStats:
        """A snapshot."""
        with self._lock:
            sessions = self._sessions.values()
            return EngineStats(
                running=sum(s.job is not None for s in sessions),
                sessions=sum(bool(s.ids) for s in sessions),
                cached_tokens=sum(len(s.ids) for s in sessions),
                cache_capacity=self._capacity,
                computed_tokens=self._computed,
                reused_tokens=self._reused,
                generated_tokens=self._generated,
                generations=self._generations,
                cancelled=self._cancelled,
                evictions=self._evictions,
                tokens_per_second=self._rate.value(),
                seconds_per_id=self._id_seconds,
            )

    # --- with the lock held -----------------------------------------------------------------------

    def _grant_room(self, state: _SessionState, job: DecodeJob) -> None:
        """Reserve room for all that `job` may compute; evict idle sessions if that is needed."""
        beyond = WARM_GROWTH_IDS if job.params is None else job.params.max_tokens
        wanted = min(self._model.context, len(job.prompt) + beyond)
        wanted = max(state.granted, -(-wanted // CACHE_GRAIN_IDS) * CACHE_GRAIN_IDS)
        missing = self._granted - state.granted + wanted - self._capacity
        idle = [k for k, s in self._sessions.items() if s.job is None and s is not state]
        if missing > sum(self._sessions[key].granted for key in idle):
            raise EngineBusyError(
                f"{self._granted} of {self._capacity} ids of room are in use by sessions that "
                "are being answered: try again later, or raise engine.embedded.cache_mb"
            )
        for key in idle:
            if missing <= 0:
                break
            victim = self._sessions.pop(key)
            missing -= victim.granted
            self._granted -= victim.granted
            self._evictions += 1
        self._granted += wanted - state.granted
        state.granted = wanted

    def _make_ready(self, state: _SessionState) -> None:
        if not state.running and state not in self._ready:
            self._ready.append(state)
            self._lock.notify()

    def _stop(self, state: _SessionState) -> None:
        if state.job is not None:
            state.job.stopped = True
            self._cancelled += 1
            self._finish(state, END)

    def _finish(self, state: _SessionState, end: AqaaError | None) -> None:
        job, state.job = state.job, None
        assert job is not None
        job.over = True
        job.deliver(end)

    # --- the workers ------------------------------------------------------------------------------

    def _run_worker(self, started: threading.Barrier) -> None:
        torch.set_num_threads(1)  # a step's products are too small to split
        started.wait()
        while taken := self._take_due():
            began = time.monotonic()
            outcomes = self._run(taken)
            each = (time.monotonic() - began) / len(taken)
            steps = taken[0][1].decodes
            with self._lock:
                if steps:
                    mean = self._id_seconds or each
                    self._id_seconds = mean + NEWEST_STEP * (each - mean)
                for (state, job), outcome in zip(taken, outcomes, strict=True):
                    self._deliver_outcome(state, job, outcome)

    def _take_due(self) -> list[tuple[_SessionState, DecodeJob]]:
        """Wait until there is work, and take what is to be computed next."""
        with self._lock:
            while not self._closed:
                runnable = {s.job: s for s in self._ready if s.job is not None and not s.job.paused}
                taken = [(runnable.pop(job), job) for job in choose(runnable, time.monotonic())]
                self._ready = [*runnable.values()]
                for state, _ in taken:
                    state.running = True
                if taken:
                    return taken
                self._lock.wait()
        return []

    def _deliver_outcome(self, state: _SessionState, job: DecodeJob, outcome: Outcome) -> None:
        """Deliver what a quantum gave, unless the job was stopped. The lock is held."""
        state.running = False
        error = outcome if isinstance(outcome, EngineError) else None
        token = outcome if isinstance(outcome, int) else None
        if not job.over:
            if token is not None:
                if not job.made:
                    job.due = time.monotonic() - DECODE_LEAD_SECONDS
                job.made += 1
                job.due += SECONDS_PER_ID
                self._generated += 1
                self._rate.add(1)
                job.deliver(token)
            else:
                job.due += SECONDS_PER_ID * PREFILL_CHUNK_STEPS
            if error is not None or self._is_complete(state, job, token):
                self._finish(state, error)
        if state.job is not None and not state.job.paused:
            self._make_ready(state)

    def _is_complete(self, state: _SessionState, job: DecodeJob, token: int | None) -> bool:
        params = job.params
        if params is None:
            return len(state.ids) >= len(job.prompt)
        return token is not None and (
            token in params.stop_ids
            or job.made >= params.max_tokens
            or len(job.prompt) + job.made >= self._model.context
        )

    # --- without the lock: the taken sessions belong to this worker alone -------------------------

    def _run(self, taken: list[tuple[_SessionState, DecodeJob]]) -> list[Outcome]:
        """One quantum of each; a fault fails its own request only."""
        if len(taken) > 1:
            try:
                logits = self._step_batch(taken)
            except Exception:  # nothing has changed; trying each alone shows whose fault it is
                log.exception("stepping %d sessions together failed", len(taken))
            else:
                rows = zip(taken, logits, strict=True)
                return [
                    _outcome(state, partial(_pick, state, job, row)) for (state, job), row in rows
                ]
        return [_outcome(state, partial(self._run_alone, state, job)) for state, job in taken]

    def _run_alone(self, state: _SessionState, job: DecodeJob) -> int | None:
        """Compute a chunk of the prompt or one step; return the new id, if there is one."""
        if job.sampler is None:
            params = job.params or SamplingParams()
            answer = job.prompt[len(job.prompt) - params.answered :]
            job.sampler = Sampler(params, answer, self._grammars)
            self._reuse_prefix(state, job)
        ids = state.ids
        chunk = job.prompt[len(ids) : len(ids) + PREFILL_CHUNK_IDS] if not job.made else [job.last]
        if not chunk:  # the prompt is computed already
            return None
        hidden = self._model.forward(torch.tensor(chunk), state.cache, len(ids))
        ids.extend(chunk)
        if not job.made:
            job.computed += len(chunk)
            with self._lock:
                self._computed += len(chunk)
        if job.params is None or len(ids) < len(job.prompt):
            return None
        return _pick(state, job, self._scores(job, hidden[-1]))

    def _step_batch(self, taken: list[tuple[_SessionState, DecodeJob]]) -> list[Tensor]:
        """Compute the newest id of each: its logits `[vocab]`. A fault changes no session."""
        last = torch.tensor([job.last for _, job in taken])
        caches = [state.cache for state, _ in taken]
        starts = [len(state.ids) for state, _ in taken]
        hidden = self._model.step(last, caches, starts)
        # One by one: see `_Buffer`.
        logits = [self._scores(job, row) for (_, job), row in zip(taken, hidden, strict=True)]
        for state, job in taken:
            state.ids.append(job.last)
        return logits

    def _scores(self, job: DecodeJob, hidden: Tensor) -> Tensor:
        """The logits `[vocab]` after `hidden` `[hidden]`, of the ids that `job` may draw now."""
        assert job.sampler is not None
        ids = job.sampler.span(self._model.config.vocab_size)
        return self._model.logits(hidden[None], ids)[0]

    def _reuse_prefix(self, state: _SessionState, job: DecodeJob) -> None:
        """Keep the longest common prefix, in a cache that has room for the job."""
        ids = state.ids
        common = common_prefix(ids, job.prompt)
        if job.params is not None:
            common = min(common, len(job.prompt) - 1)  # the last id gives the first logits
        if job.params is not None or common < len(job.prompt):
            del ids[common:]
        former = state.cache
        if former.shape[2] < state.granted:
            state.cache = self._model.empty_cache(state.granted)
            if ids:
                state.cache[..., : len(ids), :] = former[..., : len(ids), :]
        job.reused = common
        with self._lock:
            self._reused += common


def _pick(state: _SessionState, job: DecodeJob, logits: Tensor) -> int:
    """Draw the next id of `job` from `logits` `[vocab]`."""
    assert job.sampler is not None
    job.last = job.sampler.pick(logits, state.ids)
    return job.last


def _outcome(state: _SessionState, quantum: Callable[[], int | None]) -> Outcome:
    """What `quantum` gives; a fault becomes the request's error and empties the session's cache."""
    try:
        return quantum()
    except Exception as fault:  # whatever it is, the reader is told
        state.ids.clear()
        error = EngineError(f"the decoder failed on this request: {fault}")
        error.__cause__ = fault
        return error


def choose(jobs: Iterable[DecodeJob], now: float) -> list[DecodeJob]:
    """The jobs to run next: the most urgent; if it decodes, all decoding jobs that are due.

    Only such as may keep it company (`Kind.company`); with a first sound, only what is about as
    urgent.
    """
    jobs = list(jobs)
    for job in jobs:
        job.review(now)
    order = sorted(jobs, key=lambda job: job.urgency)
    if not order or not order[0].decodes:
        return order[:1]
    first = order[0]
    steps = [job for job in order if job.decodes and job.kind.company == first.kind.company]
    if first.kind is Kind.FIRST:
        most = max(first.urgency, now - DECODE_LEAD_SECONDS)  # urgent, or played now
        last = most + ABOUT_AS_URGENT_SECONDS
        steps = [job for job in steps if job.urgency <= last]
    return ([job for job in steps if job.due <= now] or steps)[:MAX_BATCH]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """The number of leading ids that `a` and `b` share."""
    shorter = min(len(a), len(b))
    return next((index for index in range(shorter) if a[index] != b[index]), shorter)
