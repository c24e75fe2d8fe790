"""Steps many conversations through one decoder, the most urgent first, on a few threads.

A conversation that has something to compute waits with the time when that is due. A worker takes
the first due, computes one quantum (a decoding step, or a chunk of a prompt, so that a long prompt
holds nobody up), and puts it back. An id of an answer is due some time before its sound is played,
so an answer that has just begun overtakes those whose sound lasts for a while yet. Decoding steps
that are due are computed together, in a way (`Step1.step`) in which the ids of one do not depend,
in any bit, on what the others do.

Each conversation keeps the keys and values of the ids that it has computed, and the ids. New work
on it starts after the longest common prefix. Room is granted when work is accepted, so no answer
stops for want of it; idle conversations give theirs up, the longest unused first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from aqaa.models.errors import AqaaError, EngineBusyError, EngineDiedError, EngineError
from aqaa.models.groups import GROUP_SECONDS
from aqaa.server.engine.contract import EngineStats, SamplingParams
from aqaa.server.engine.embedded.sampling import Sampler
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.server.engine.rate import Rate

log = logging.getLogger(__name__)

PREFILL_CHUNK = 32  # ids of a prompt in one quantum
CHUNK_COST = 8  # decoding steps that it costs as much as, about
ROOM = 256  # room is granted in multiples of this
WARM_ROOM = 512  # beyond a prompt that is only warmed: it will grow
BATCH = 8  # conversations stepped together; more make a step, and so every gap, longer
BUFFER = 64  # ids that may wait for a slow reader: more than a second of speech
PLAYED = GROUP_SECONDS * 3 / 25  # seconds of sound to an id: ten of text come with three groups
# How long before its sound an id is due: a vocoder's chunk and its look-ahead take half of it.
AHEAD = 1.5

END = None
Item = int | AqaaError | None
Outcome = int | EngineError | None  # of a quantum: an id, a fault, or nothing yet


@dataclass(slots=True, eq=False)
class Job:
    """One warm-up (`params` is None) or one generation.

    `deliver` takes each id, then `END` or an error, in any thread; it must not block.
    """

    prompt: list[int]
    params: SamplingParams | None
    deliver: Callable[[Item], None]
    over: bool = False  # nothing more will be delivered
    stopped: bool = False  # cancelled or superseded: what was delivered and not read is void
    computed: int = 0
    reused: int = 0
    made: int = 0
    due: float = 0.0  # when the next quantum should be computed, as `time.monotonic` counts
    read: int = 0
    last: int = 0  # the id that was sampled last and is not computed yet
    sampler: Sampler | None = None

    @property
    def paused(self) -> bool:
        """Whether its reader is so far behind that it must wait."""
        return self.made - self.read >= BUFFER

    @property
    def decodes(self) -> bool:
        """Whether its next quantum is a decoding step."""
        return self.made > 0


@dataclass(slots=True, eq=False)
class _Conversation:
    """What a session key holds. `ids` and `cache` belong to the worker that runs it."""

    job: Job | None = None
    running: bool = False
    granted: int = 0
    ids: list[int] = field(default_factory=list)  # those whose keys and values are in `cache`
    cache: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0, 0))


class Scheduler:
    """Owns the worker threads and all conversations. Its methods may be called from any thread."""

    def __init__(self, model: Step1, capacity: int, workers: int) -> None:
        """Start `workers` threads; `capacity` is the room of all conversations, in ids."""
        self._model = model
        self._capacity = capacity
        self._lock = threading.Condition()
        self._conversations: OrderedDict[str, _Conversation] = OrderedDict()  # oldest use first
        self._ready: list[_Conversation] = []
        self._closed = False
        self._granted = 0
        self._rate = Rate()
        self._computed = self._reused = self._generated = 0
        self._generations = self._cancelled = self._evictions = 0
        self._threads = [
            threading.Thread(target=self._work, name=f"decoder-{index}", daemon=True)
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End all jobs with `EngineDiedError` and wait for the workers."""
        with self._lock:
            self._closed = True
            for conversation in self._conversations.values():
                if conversation.job is not None:
                    self._finish(conversation, EngineDiedError("the engine was closed"))
            self._conversations.clear()
            self._ready.clear()
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, key: str, job: Job) -> None:
        """Begin `job` in the conversation `key`; a job that runs there is superseded.

        Raises:
            EngineDiedError: the scheduler is closed.
            EngineBusyError: all room is taken by conversations that are being computed.
        """
        with self._lock:
            if self._closed:
                raise EngineDiedError("the engine is closed: start it again")
            conversation = self._conversations.get(key) or _Conversation()
            self._grant(conversation, job)
            self._conversations[key] = conversation
            self._conversations.move_to_end(key)
            self._stop(conversation)
            conversation.job = job
            job.due = time.monotonic() - AHEAD
            self._generations += job.params is not None
            self._queue(conversation)

    def stop(self, key: str, job: Job | None = None) -> None:
        """Cancel what runs in the conversation `key`, or only `job` if that is what runs there."""
        with self._lock:
            conversation = self._conversations.get(key)
            if conversation is not None and job in (None, conversation.job):
                self._stop(conversation)

    def release(self, key: str) -> None:
        """Cancel, and forget what was computed."""
        with self._lock:
            conversation = self._conversations.pop(key, None)
            if conversation is not None:
                self._stop(conversation)
                self._granted -= conversation.granted

    def taken(self, key: str, job: Job) -> None:
        """The reader took an id; a generation that waited for that goes on at half a buffer."""
        with self._lock:
            job.read += 1
            conversation = self._conversations.get(key)
            if conversation is None or conversation.job is not job:
                return
            if job.made - job.read == BUFFER // 2:
                # The time that it waited is not owed to it: its sound was not played meanwhile.
                job.due = max(job.due, time.monotonic() - AHEAD)
                self._queue(conversation)

    def stats(self) -> EngineStats:
        """A snapshot."""
        with self._lock:
            conversations = self._conversations.values()
            return EngineStats(
                running=sum(c.job is not None for c in conversations),
                sessions=sum(bool(c.ids) for c in conversations),
                cached_tokens=sum(len(c.ids) for c in conversations),
                cache_capacity=self._capacity,
                computed_tokens=self._computed,
                reused_tokens=self._reused,
                generated_tokens=self._generated,
                generations=self._generations,
                cancelled=self._cancelled,
                evictions=self._evictions,
                tokens_per_second=self._rate.value(),
            )

    # --- with the lock held -----------------------------------------------------------------------

    def _grant(self, conversation: _Conversation, job: Job) -> None:
        """Room for all that `job` may compute, taken from idle conversations if need be."""
        beyond = WARM_ROOM if job.params is None else job.params.max_tokens
        wanted = min(self._model.context, len(job.prompt) + beyond)
        wanted = max(conversation.granted, -(-wanted // ROOM) * ROOM)
        missing = self._granted - conversation.granted + wanted - self._capacity
        held = self._conversations.items()
        idle = [key for key, c in held if c.job is None and c is not conversation]
        if missing > sum(self._conversations[key].granted for key in idle):
            raise EngineBusyError(
                f"{self._granted} of {self._capacity} ids of room are in use by conversations that "
                "are being answered: try again later, or raise engine.embedded.cache_mb"
            )
        for key in idle:
            if missing <= 0:
                break
            victim = self._conversations.pop(key)
            missing -= victim.granted
            self._granted -= victim.granted
            self._evictions += 1
        self._granted += wanted - conversation.granted
        conversation.granted = wanted

    def _queue(self, conversation: _Conversation) -> None:
        if not conversation.running and conversation not in self._ready:
            self._ready.append(conversation)
            self._lock.notify()

    def _stop(self, conversation: _Conversation) -> None:
        if conversation.job is not None:
            conversation.job.stopped = True
            self._cancelled += 1
            self._finish(conversation, END)

    def _finish(self, conversation: _Conversation, end: AqaaError | None) -> None:
        job, conversation.job = conversation.job, None
        assert job is not None
        job.over = True
        job.deliver(end)

    # --- the workers ------------------------------------------------------------------------------

    def _work(self) -> None:
        torch.set_num_threads(1)  # a step's products are too small to be worth splitting
        while picked := self._pick():
            outcomes = self._compute(picked)
            with self._lock:
                for (conversation, job), outcome in zip(picked, outcomes, strict=True):
                    self._settle(conversation, job, outcome)

    def _pick(self) -> list[tuple[_Conversation, Job]]:
        """Wait for work; what is to be computed next."""
        with self._lock:
            while not self._closed:
                able = {c.job: c for c in self._ready if c.job is not None and not c.job.paused}
                picked = [(able.pop(job), job) for job in choose(able, time.monotonic())]
                self._ready = [*able.values()]
                for conversation, _ in picked:
                    conversation.running = True
                if picked:
                    return picked
                self._lock.wait()
        return []

    def _settle(self, conversation: _Conversation, job: Job, outcome: Outcome) -> None:
        """With the lock held, hand on what a quantum gave; void if the job was stopped."""
        conversation.running = False
        error = outcome if isinstance(outcome, EngineError) else None
        token = outcome if isinstance(outcome, int) else None
        if not job.over:
            if token is not None:
                begins = not job.made
                job.made += 1
                job.due = (time.monotonic() - AHEAD if begins else job.due) + PLAYED
                self._generated += 1
                self._rate.add(1)
                job.deliver(token)
            else:
                job.due += PLAYED * CHUNK_COST
            if error is not None or self._complete(conversation, job, token):
                self._finish(conversation, error)
        if conversation.job is not None and not conversation.job.paused:
            self._queue(conversation)

    def _complete(self, conversation: _Conversation, job: Job, token: int | None) -> bool:
        params = job.params
        if params is None:
            return len(conversation.ids) >= len(job.prompt)
        return token is not None and (
            token in params.stop_ids
            or job.made >= params.max_tokens
            or len(job.prompt) + job.made >= self._model.context
        )

    # --- without it: the picked conversations are this worker's alone -----------------------------

    def _compute(self, picked: list[tuple[_Conversation, Job]]) -> list[Outcome]:
        """A quantum of each."""
        if len(picked) > 1:
            try:
                return self._advance_together(picked)
            except Exception:  # each is tried alone, which tells whose fault it is
                log.exception("stepping %d conversations together failed", len(picked))
        outcomes: list[Outcome] = []
        for conversation, job in picked:
            try:
                outcomes.append(self._advance(conversation, job))
            except Exception as fault:  # whatever it is, the reader must hear of it
                conversation.ids.clear()
                error = EngineError(f"the decoder failed on this request: {fault}")
                error.__cause__ = fault
                outcomes.append(error)
        return outcomes

    def _advance(self, conversation: _Conversation, job: Job) -> int | None:
        """One quantum: a chunk of the prompt, or one more id. The id, if there is one."""
        if job.sampler is None:
            job.sampler = Sampler(job.params or SamplingParams())
            self._resume(conversation, job)
        ids = conversation.ids
        chunk = job.prompt[len(ids) : len(ids) + PREFILL_CHUNK] if not job.made else [job.last]
        if not chunk:  # a prompt that was warmed already
            return None
        hidden = self._model.forward(torch.tensor(chunk), conversation.cache, len(ids))
        ids.extend(chunk)
        if not job.made:
            job.computed += len(chunk)
            with self._lock:
                self._computed += len(chunk)
        if job.params is None or len(ids) < len(job.prompt):
            return None
        job.last = job.sampler.pick(self._model.logits(hidden[-1:])[0], ids)
        return job.last

    def _advance_together(self, picked: list[tuple[_Conversation, Job]]) -> list[Outcome]:
        """One more id of each; a fault leaves all as they were."""
        last = torch.tensor([job.last for _, job in picked])
        caches = [conversation.cache for conversation, _ in picked]
        starts = [len(conversation.ids) for conversation, _ in picked]
        hidden = self._model.step(last, caches, starts)
        for row, (conversation, job) in enumerate(picked):
            conversation.ids.append(job.last)
            assert job.sampler is not None
            logits = self._model.logits(hidden[row : row + 1])[0]
            job.last = job.sampler.pick(logits, conversation.ids)
        return [job.last for _, job in picked]

    def _resume(self, conversation: _Conversation, job: Job) -> None:
        """Keep the longest prefix that is computed already, in a cache with room for the job."""
        ids = conversation.ids
        common = common_prefix(ids, job.prompt)
        if job.params is not None:
            common = min(common, len(job.prompt) - 1)  # the last one gives the first logits
        if job.params is not None or common < len(job.prompt):
            del ids[common:]
        former = conversation.cache
        if former.shape[2] < conversation.granted:
            conversation.cache = self._model.empty_cache(conversation.granted)
            if ids:
                conversation.cache[..., : len(ids), :] = former[..., : len(ids), :]
        job.reused = common
        with self._lock:
            self._reused += common


def choose(jobs: Iterable[Job], now: float) -> list[Job]:
    """Whose quantum comes next: the first due, and if it is a decoding step, all that are due."""
    order = sorted(jobs, key=lambda job: job.due)
    if not order or not order[0].decodes:
        return order[:1]
    steps = [job for job in order if job.decodes]
    return ([job for job in steps if job.due <= now] or steps)[:BATCH]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids are the same."""
    shorter = min(len(a), len(b))
    return next((index for index in range(shorter) if a[index] != b[index]), shorter)
