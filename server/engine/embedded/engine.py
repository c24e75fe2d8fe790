"""The in-process engine: Step-1 in plain PyTorch, for CPUs and small checkpoints.

The event loop only hands jobs to the scheduler's threads and takes ids from a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from aqaa.models.errors import AqaaError, EngineDiedError
from aqaa.models.step1 import Step1Config
from aqaa.server.engine.call_mask import CallGrammars
from aqaa.server.engine.contract import EngineStats, SamplingParams, check_prompt, purpose
from aqaa.server.engine.embedded.scheduler import END, DecodeJob, Scheduler, StreamItem
from aqaa.server.engine.embedded.step1 import Step1
from aqaa.server.engine.settings import EmbeddedSettings

FLOAT32_BYTES = 4


class EmbeddedEngine:
    """The engine contract (`aqaa.server.engine.contract.Engine`) on the scheduler."""

    name = "embedded"

    def __init__(
        self, directory: Path, settings: EmbeddedSettings, context: int | None = None
    ) -> None:
        """Read the checkpoint's config.json; weights are loaded by `start`.

        Args:
            directory: a Step-1 checkpoint in the published layout.
            settings: the operator's.
            context: ids of prompt and answer together, up to the checkpoint's; None takes that.

        Raises:
            BundleError: config.json is missing or cannot be used.
        """
        self._directory = directory
        self._settings = settings
        self._config = Step1Config.load(directory)
        self._context = min(context or self._config.max_seq_len, self._config.max_seq_len)
        self._model: Step1 | None = None
        self._grammars: CallGrammars | None = None
        self._scheduler: Scheduler | None = None
        self._latest: dict[str, DecodeJob] = {}  # generations, by session

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size)."""
        return self._config.vocab_size

    @property
    def context(self) -> int:
        """The most ids that prompt and answer may have together."""
        return self._context

    @property
    def alive(self) -> bool:
        """Whether it has started and can take requests now."""
        return self._scheduler is not None

    async def start(self) -> None:
        """Load the weights and start the workers; see the contract."""
        if self._scheduler is not None:
            return
        if self._model is None:
            self._model = await asyncio.to_thread(Step1.load, self._directory, self._context)
            self._grammars = await asyncio.to_thread(CallGrammars.beside, self._directory)
        bytes_per_id = self._config.kv_per_token * FLOAT32_BYTES
        capacity = max(self._context, self._settings.cache_mb * 2**20 // bytes_per_id)
        self._scheduler = Scheduler(self._model, capacity, self._settings.workers, self._grammars)

    async def close(self) -> None:
        """End all work; see the contract."""
        scheduler, self._scheduler = self._scheduler, None
        if scheduler is not None:
            await asyncio.to_thread(scheduler.close)

    async def warm(self, session: str, prompt: Sequence[int]) -> int:
        """Compute what of `prompt` is not computed; see the contract."""
        job, items = self._begin(session, prompt, None)
        try:
            item = await items.get()
            if isinstance(item, AqaaError):
                raise item
            return job.computed
        finally:
            self._stop(session, job)

    async def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        """Continue `prompt`; see the contract."""
        job, items = self._begin(session, prompt, params)
        self._latest[session] = job
        try:
            while True:
                item = await items.get()
                if item is END or job.stopped:
                    return
                if isinstance(item, AqaaError):
                    raise item
                if self._scheduler is not None:
                    self._scheduler.taken(session, job)
                yield item
        finally:
            self._stop(session, job)

    async def cancel(self, session: str) -> None:
        """Stop the session's running work, if any."""
        if self._scheduler is not None:
            self._scheduler.stop(session)

    async def release(self, session: str) -> None:
        """Stop the session's work and forget what it computed."""
        self._latest.pop(session, None)
        if self._scheduler is not None:
            self._scheduler.release(session)

    def reused(self, session: str) -> int:
        """Prompt ids of the session's latest generation that were found computed."""
        job = self._latest.get(session)
        return 0 if job is None else job.reused

    def stats(self) -> EngineStats:
        """Counters and gauges of this moment."""
        return self._scheduler.stats() if self._scheduler is not None else EngineStats()

    def _begin(
        self, session: str, prompt: Sequence[int], params: SamplingParams | None
    ) -> tuple[DecodeJob, asyncio.Queue[StreamItem]]:
        check_prompt(prompt, self.vocab_size, self.context)
        if self._scheduler is None:
            raise EngineDiedError("the engine is not running: start it first")
        items: asyncio.Queue[StreamItem] = asyncio.Queue()  # the scheduler bounds it
        job = DecodeJob(list(prompt), params, _into(items), purpose.get())
        self._scheduler.submit(session, job)
        return job, items

    def _stop(self, session: str, job: DecodeJob) -> None:
        if not job.over and self._scheduler is not None:
            self._scheduler.stop(session, job)


def _into(items: asyncio.Queue[StreamItem]) -> Callable[[StreamItem], None]:
    """A function that puts items into `items` from any thread, until the loop is closed."""
    loop = asyncio.get_running_loop()

    def deliver(item: StreamItem) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(items.put_nowait, item)

    return deliver
