"""What is computed for a turn before it has ended: the prompt's prefix, and a speculative answer.

While the user speaks the engine computes the prompt so far. At a pause the answer is started as if
the turn were over, and held back; where there is no time for that, its prompt is computed to the
end. When the turn ends and the machine asks for that very answer, it is taken; when the user goes
on speaking, it is rolled back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Literal

from aqaa.models.errors import AqaaError
from aqaa.models.groups import GROUP_TOKENS
from aqaa.server.answering.answer import Answer, AnswerRequest
from aqaa.server.dialogue.tools import Calling
from aqaa.server.dialogue.truncation import AUTO, Truncation
from aqaa.server.engine.contract import purpose
from aqaa.server.parts import ModelParts, output_of
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol.session_types import RetentionRatio
from aqaa.server.protocol.types import bytes_per_second
from aqaa.server.session.memory import Memory
from aqaa.server.urgency import Kind

log = logging.getLogger(__name__)

# A wanted answer's first sound would wait so long now: no time for answers that may be in vain.
NO_SLACK_SECONDS = 0.1

# The prompt so far is computed anew when its turn has grown by so many ids: a second of speech.
# Each time costs the gateway a walk through the prompt and the engine a step, however little is
# new; what is left when the turn is over takes nano some milliseconds.
WARM_IDS = 8 * GROUP_TOKENS

Outcome = Literal["rolled_back", "abandoned", "mismatched", "failed"]


async def request_of(
    parts: ModelParts, memory: Memory, run: fx.StartRun, speaking: Sequence[int] = ()
) -> AnswerRequest:
    """What `run` asks of the model; `speaking`: what the user is saying just now.

    Raises:
        PromptError: the conversation is too long, and may not be cut or cannot be cut enough.
    """
    turns = await memory.turns(run.items, _told(parts, run), speaking)
    prompt = parts.prompts.finished(turns, _truncation(run))
    calling = _calling(parts, run)
    asked, params = parts.asked(prompt, run.max_tokens, calling, memory.begun(run.item_id))
    heard = memory.heard_before(run.item_id) // GROUP_TOKENS
    spoken = run.modality == "audio"
    return AnswerRequest(asked, params, run.voice, run.speed, spoken, calling, heard)


def _told(parts: ModelParts, run: fx.StartRun) -> str:
    """What the system's turn says: the instructions, and the functions that there are."""
    return parts.prompts.instructions(run.instructions, _calling(parts, run))


def _calling(parts: ModelParts, run: fx.StartRun) -> Calling | None:
    return parts.calling(run.tools, run.tool_choice, parallel=run.parallel_tool_calls)


def _truncation(run: fx.StartRun) -> Truncation:
    """What `run` wants done with a conversation that is too long."""
    match run.truncation:
        case "auto":
            return AUTO
        case "disabled":
            return Truncation(retained=None)
        case RetentionRatio(retention_ratio=ratio, token_limits=limits):
            return Truncation(ratio, None if limits is None else limits.post_instructions)


def start_answer(parts: ModelParts, key: str, request: AnswerRequest, run: fx.StartRun) -> Answer:
    """An answer to `request` with the sound in the run's format, in the engine's session `key`."""
    return Answer(
        parts.services,
        key,
        request,
        parts.parser(request.calling),
        output_of(run.format) if request.spoken else None,
        bytes_per_second=bytes_per_second(run.format),
    )


class HeadStart:
    """One session's. Its work gives way to the session's own answer as soon as there is one."""

    def __init__(
        self,
        parts: ModelParts,
        key: str,
        memory: Memory,
        *,
        next_run: Callable[[], fx.StartRun],
        answering: Callable[[], bool],
        dispose: Callable[[Answer], None],
    ) -> None:
        """Nothing yet.

        Args:
            parts: the server's.
            key: the engine's session key.
            memory: the session's.
            next_run: what an answer would be asked for if the turn were over now.
            answering: whether an answer of the conversation is in progress.
            dispose: takes an answer that nobody wants any more, and stops it.
        """
        self._parts = parts
        self._key = key
        self._memory = memory
        self._next_run = next_run
        self._answering = answering
        self._dispose = dispose
        self._answer: Answer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._warm_tokens: tuple[int, ...] | None = None
        self._warmed: int | None = None  # how long the turn was when it was computed last

    def warm(self, tokens: tuple[int, ...]) -> None:
        """The turn has come to these audio tokens: have the engine compute the prompt so far, if
        enough is new."""
        if self._warmed is not None and len(tokens) < self._warmed + WARM_IDS:
            return
        self._warm_tokens = tokens
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._keep_warm())

    def stop_warming(self) -> None:
        """The turn is over."""
        self._warm_tokens = self._warmed = None

    def speculate(self, tokens: tuple[int, ...]) -> None:
        """The turn has paused at these audio tokens: start the answer, if there is time for it."""
        self.roll_back("rolled_back")
        self.stop_warming()
        run = self._next_run()  # of now: the turn may have ended before the task begins
        self._starting = asyncio.create_task(self._start(run, tokens))

    def roll_back(self, outcome: Outcome) -> None:
        """The speculation was in vain, if there is one."""
        self._stop_starting()
        if self._answer is not None:
            self._parts.services.metrics.speculations.labels(outcome).inc()
            self._dispose(self._answer)
            self._answer = None

    def take(self, request: AnswerRequest) -> Answer | None:
        """The speculation, if it answers this very request; it is the caller's from now on."""
        self._stop_starting()
        answer = self._answer
        if answer is None:
            return None
        if answer.request != request:
            self.roll_back("mismatched")
            return None
        if answer.failed:  # the decoder may be well by now
            self.roll_back("failed")
            return None
        self._answer = None
        answer.adopt()
        services = self._parts.services
        now, first = services.clock(), answer.progress.timeline.first_sound
        services.metrics.speculations.labels("hit").inc()
        services.metrics.saved.inc(min(now, first or now) - answer.started)
        return answer

    async def close(self) -> None:
        """Stop everything."""
        tasks = [task for task in (self._starting, self._warming) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._answer is not None:
            await self._answer.stop()

    async def _keep_warm(self) -> None:
        purpose.set(lambda: Kind.SPECULATIVE)  # for this task
        try:
            while (tokens := self._warm_tokens) is not None:
                self._warm_tokens = None
                if self._answering() or self._answer is not None:
                    return
                self._warmed = len(tokens)
                run = self._next_run()
                turns = await self._memory.turns(run.items, _told(self._parts, run), tokens)
                prompt = self._parts.prompts.unfinished(turns, _truncation(run))
                await self._parts.services.engine.warm(self._key, prompt)
        except AqaaError as error:  # the answer meets the same fault, and reports it
            log.info("warming up failed: %s", error)

    async def _start(self, run: fx.StartRun, tokens: tuple[int, ...]) -> None:
        purpose.set(lambda: Kind.SPECULATIVE)  # for this task; an answer's tell their own
        services = self._parts.services
        slack = services.executor.delay(Kind.FIRST, services.clock()) <= NO_SLACK_SECONDS
        if not slack:
            services.metrics.speculations.labels("no_slack").inc()
        try:
            request = await request_of(self._parts, self._memory, run, tokens)
            if not slack:
                await services.engine.warm(self._key, request.prompt)
                return
        except AqaaError as error:
            log.info("no speculation: %s", error)
            return
        self._answer = start_answer(self._parts, self._key, request, run)

    def _stop_starting(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
