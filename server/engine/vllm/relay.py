"""The base of both vLLM engines, which relay requests to a decoder in another process.

A subclass sends one request to vLLM (`_request`). This module builds the engine contract on that:
one piece of work a session, a bounded buffer between vLLM and the reader, counters.

vLLM cannot pause a request. So a stream that nobody reads is aborted when `MAX_UNREAD_IDS` ids
wait, and requested again from there when the reader goes on; vLLM's prefix cache makes that cheap.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from aqaa.models.errors import EngineDiedError
from aqaa.server.engine.contract import (
    MAX_UNREAD_IDS,
    EngineStats,
    SamplingParams,
    check_prompt,
)
from aqaa.server.engine.rate import Rate
from aqaa.server.engine.vllm.answer_clock import SoundInHand

PREFILL_ONLY = SamplingParams(temperature=0.0, top_p=1.0, max_tokens=1)


@dataclass(frozen=True, slots=True)
class TokenDelta:
    """What vLLM sends at once.

    Attributes:
        tokens: the next ids, possibly none.
        finished: the answer is complete: it has its stop id, or all ids that were asked for.
        reused: prompt ids that the prefix cache held; told once a request, None in other deltas.
    """

    tokens: tuple[int, ...] = ()
    finished: bool = False
    reused: int | None = None


@dataclass(slots=True, eq=False)
class _Work:
    """A session's running piece of work: a task fills `waiting`, a reader empties it."""

    sound: SoundInHand
    task: asyncio.Task[None] | None = None
    waiting: deque[int] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # wakes the reader
    drained: asyncio.Event = field(default_factory=asyncio.Event)  # wakes the task
    stopped: bool = False
    error: Exception | None = None
    computed: int = 0
    reused: int = 0  # ids of the prompt, as the first request found them

    async def stop(self, error: Exception | None = None) -> None:
        """Abort the request and end the stream: at once, or with `error` after the waiting ids."""
        self.stopped = True
        self.error = error
        if error is None:
            self.waiting.clear()
        self.changed.set()
        if self.task is not None:
            self.task.cancel()
            if error is None:  # with one, the decoder may be dead and never take the abort
                await asyncio.wait([self.task])


class RelayEngine(ABC):
    """The engine contract (`aqaa.server.engine.contract.Engine`) over single requests to vLLM."""

    def __init__(self, vocab_size: int, context: int, block: int, audio_offset: int) -> None:
        """Keep what of the decoder matters here.

        Args:
            vocab_size: ids are in [0, vocab_size).
            context: the most ids of prompt and answer together.
            block: ids in one block of vLLM's prefix cache, which reuses whole blocks only.
            audio_offset: the first of the audio ids.
        """
        self._vocab_size = vocab_size
        self._context = context
        self._block = block
        self._audio_offset = audio_offset
        self._work: dict[str, _Work] = {}
        self._latest: dict[str, _Work] = {}  # generations
        self._tasks: set[asyncio.Task[None]] = set()  # the event loop itself holds no reference
        self._prefixes: dict[str, tuple[int, ...]] = {}  # whole blocks that a session has computed
        self._rate = Rate()
        self._computed = self._reused = self._generated = self._generations = self._cancelled = 0

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size)."""
        return self._vocab_size

    @property
    def context(self) -> int:
        """The most ids that prompt and answer may have together."""
        return self._context

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it has started and can take requests now."""

    @abstractmethod
    async def _ensure_running(self) -> None:
        """Return when requests can be sent; restart a decoder that died.

        Raises:
            EngineDiedError: the engine was never started, or was closed, or does not come back.
        """

    @abstractmethod
    def _request(
        self, session: str, prompt: Sequence[int], params: SamplingParams, sound: SoundInHand
    ) -> AsyncGenerator[TokenDelta, None]:
        """Send one request. Closing the generator aborts it. `sound`: of the answer so far.

        Raises:
            EngineDiedError, EngineBusyError, EngineError, InputError
        """

    async def warm(self, session: str, prompt: Sequence[int]) -> int:
        """Send the prompt for one id that is dropped; return the number of prompt ids computed.

        A prompt that completes no further block of the prefix cache is not sent.
        """
        check_prompt(prompt, self._vocab_size, self._context)
        whole = self._whole_blocks(prompt)
        if self._prefixes.get(session, ())[: len(whole)] == whole and self.alive:
            return 0
        work = _Work(SoundInHand(self._audio_offset))
        async for _ in self._run(work, session, prompt, PREFILL_ONLY):
            pass
        return work.computed

    async def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        """Continue `prompt`; see the contract."""
        check_prompt(prompt, self._vocab_size, self._context)
        self._generations += 1
        work = self._latest[session] = _Work(SoundInHand(self._audio_offset))
        async with aclosing(self._run(work, session, prompt, params)) as tokens:
            async for token in tokens:
                yield token

    async def cancel(self, session: str) -> None:
        """Abort the session's running request, if any."""
        work = self._work.pop(session, None)
        if work is not None:
            self._cancelled += 1
            await work.stop()

    async def release(self, session: str) -> None:
        """Abort the request and forget the session; vLLM evicts its blocks when it needs room."""
        self._prefixes.pop(session, None)  # first: a caller that is cancelled waits no longer
        self._latest.pop(session, None)
        await self.cancel(session)

    def reused(self, session: str) -> int:
        """Prompt ids of the session's latest generation that the prefix cache held."""
        work = self._latest.get(session)
        return 0 if work is None else work.reused

    def stats(self) -> EngineStats:
        """Counters of this process; vLLM's own metrics tell what its cache holds."""
        return EngineStats(
            running=len(self._work),
            sessions=len(self._prefixes),
            computed_tokens=self._computed,
            reused_tokens=self._reused,
            generated_tokens=self._generated,
            generations=self._generations,
            cancelled=self._cancelled,
            tokens_per_second=self._rate.value(),
        )

    async def _stop_all(self, error: EngineDiedError) -> None:
        """End all work; the readers get `error`."""
        running = list(self._work.values())
        self._work.clear()
        self._prefixes.clear()
        await asyncio.gather(*(work.stop(error) for work in running))

    def _whole_blocks(self, prompt: Sequence[int]) -> tuple[int, ...]:
        return tuple(prompt[: len(prompt) // self._block * self._block])

    async def _run(
        self, work: _Work, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        """The one path of warm-ups and generations: supersede, request, read, clean up."""
        former = self._work.get(session)
        self._work[session] = work
        try:
            if former is not None:
                self._cancelled += 1
                await former.stop()
            if not work.stopped:
                work.task = asyncio.create_task(self._fill(work, session, prompt, params))
                self._tasks.add(work.task)
                work.task.add_done_callback(self._tasks.discard)
            while True:
                while work.waiting:
                    yield work.waiting.popleft()
                    if len(work.waiting) <= MAX_UNREAD_IDS // 2:
                        work.drained.set()
                if work.error is not None:
                    raise work.error
                if work.stopped:
                    return
                work.changed.clear()
                await work.changed.wait()
        finally:
            if self._work.get(session) is work:
                del self._work[session]
                if not work.stopped:
                    self._cancelled += 1  # the reader left before the end
            await work.stop(work.error)

    async def _fill(
        self, work: _Work, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> None:
        """Fill `work`, with as many requests as that takes; any error goes to the reader."""
        try:
            await self._ensure_running()
            sent: list[int] = []
            limit = min(params.max_tokens, self._context - len(prompt))
            while len(sent) < limit:
                rest = replace(params, max_tokens=limit).after(len(sent))
                if await self._relay(work, session, (*prompt, *sent), rest, sent):
                    break
                work.drained.clear()
                if len(work.waiting) > MAX_UNREAD_IDS // 2:
                    await work.drained.wait()
        except Exception as error:
            if isinstance(error, EngineDiedError):
                self._prefixes.clear()
            work.error = error
        finally:
            work.stopped = True
            work.changed.set()

    async def _relay(
        self,
        work: _Work,
        session: str,
        prompt: tuple[int, ...],
        params: SamplingParams,
        sent: list[int],
    ) -> bool:
        """One request; whether it ended by itself. If not, it was aborted for a slow reader."""
        finished, first = False, not sent
        async with aclosing(self._request(session, prompt, params, work.sound)) as deltas:
            async for delta in deltas:
                if delta.reused is not None:
                    self._reused += delta.reused
                    work.reused = delta.reused if first else work.reused
                    self._computed += len(prompt) - delta.reused
                    work.computed += len(prompt) - delta.reused
                    self._prefixes[session] = self._whole_blocks(prompt)
                finished = finished or delta.finished
                sent.extend(delta.tokens)
                work.sound.add(delta.tokens)
                self._generated += len(delta.tokens)
                self._rate.add(len(delta.tokens))
                work.waiting.extend(delta.tokens)
                work.changed.set()
                if len(work.waiting) >= MAX_UNREAD_IDS and not finished:
                    return False
        return True
