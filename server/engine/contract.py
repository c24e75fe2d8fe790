"""The contract of every engine: the whole prompt in, a stream of token ids out.

The caller always gives the whole prompt. The engine finds the longest prefix that this session has
already computed, and computes the rest. So incremental prefill (`warm` with a growing prompt), a
speculative start, its roll-back (an older, shorter prompt), barge-in and resume are one mechanism.

    stream = engine.generate("session-7", prompt, params)
    async with contextlib.aclosing(stream):
        async for token in stream:
            ...

Rules that every engine keeps, and `tests/support/engine_conformance.py` checks:

- A session key has one piece of work at a time. A new `warm` or `generate` of a key supersedes
  the running one: the old stream ends quietly, the old `warm` returns what it computed so far.
- `cancel` and closing the stream stop the work within one decoding step. Computed ids stay
  reusable until `release` or until the engine needs the room.
- A stream that nobody reads pauses its generation after `MAX_UNREAD_IDS`, or a few more.
- A refused request (`InputError`) or a fault (`EngineError`) leaves nothing behind.
- An engine whose decoder died comes back by itself. `start` is for its owner alone, and nothing
  else opens an engine again after `close`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Protocol

from aqaa.models.bundle import Bundle
from aqaa.models.errors import InputError, PromptError
from aqaa.server.engine.call_shape import CallShape
from aqaa.server.engine.pattern import AnswerPattern
from aqaa.server.urgency import Kind

# The W3C trace context of the current turn, if it is traced; vllm-http sends it on to vLLM.
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)

# What the current task's work is for. An engine that decides itself what goes first asks again
# before each step, from its own threads: a speculation may be wanted by then.
purpose: ContextVar[Callable[[], Kind]] = ContextVar("purpose", default=lambda: Kind.FIRST)

MAX_UNREAD_IDS = 64  # generated and not read; then a generation waits: over a second of speech
REPETITION_WINDOW = 10  # ids of prompt + output that the repetition rule looks at (SPEC 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How the next id is drawn from the logits.

    Attributes:
        temperature: 0 takes the likeliest id; otherwise logits are divided by it.
        top_p: ids are drawn from the smallest set whose probabilities reach this sum.
        repetition_aware: the published rule (SPEC 5): an id that is the last one, and stands at
            least twice among the last `REPETITION_WINDOW` ids of prompt and output, is not drawn,
            unless it is of a call.
        pattern: ids that break this pattern are not drawn; None allows any.
        calls: inside a call, ids that break its schema are not drawn; None: it may not call.
        max_tokens: the stream ends after this many ids, or when the context is full.
        seed: makes a sampled answer repeatable on one engine; None draws a fresh seed.
        stop_ids: the stream ends after the first of these, and delivers it.
        answered: how many ids at the prompt's end are the beginning of this answer. An answer that
            was cut goes on as the uncut one: pattern and random numbers continue from there.

    Raises:
        InputError: a value outside its range.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_aware: bool = False
    pattern: AnswerPattern | None = None
    calls: CallShape | None = None
    max_tokens: int = 2048
    seed: int | None = None
    stop_ids: tuple[int, ...] = ()
    answered: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise InputError(f"temperature is {self.temperature}: give 0 or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: give a number above 0 and up to 1")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens is {self.max_tokens}: give at least 1")
        if self.answered < 0:
            raise InputError(f"answered is {self.answered}: give 0 or more")

    def after(self, count: int) -> SamplingParams:
        """The parameters of the rest of the answer once `count` of its ids are in the prompt."""
        return replace(
            self, answered=self.answered + count, max_tokens=max(1, self.max_tokens - count)
        )

    @classmethod
    def of(
        cls,
        bundle: Bundle,
        *,
        max_tokens: int | None = None,
        seed: int | None = None,
        may_call: bool = False,
        parallel_calls: bool = True,
    ) -> SamplingParams:
        """The parameters that `bundle` sets, for an answer of at most `max_tokens` ids.

        `may_call`, `parallel_calls`: whether it may call functions, and more than one.
        """
        sampling, tokens = bundle.sampling, bundle.tokens
        pattern = AnswerPattern.of(
            tokens, bundle.tools, may_call=may_call, parallel_calls=parallel_calls
        )
        most = sampling.max_tokens if max_tokens is None else min(max_tokens, sampling.max_tokens)
        return cls(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            repetition_aware=sampling.repetition_aware,
            pattern=pattern if sampling.keep_pattern else None,
            max_tokens=most,
            seed=seed,
            stop_ids=(tokens.eot,),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A snapshot for `/metrics` and tests. Counters count from `start`.

    Attributes:
        running: generations and warm-ups in progress, those paused by a slow reader included.
        sessions: session keys that hold computed tokens.
        cached_tokens: computed tokens in the cache; None where the engine cannot tell.
        cache_capacity: how many the cache can hold; None where the engine cannot tell.
        computed_tokens: prompt ids that ran through the decoder.
        reused_tokens: prompt ids that did not, because the cache held them.
        generated_tokens: ids delivered or queued for delivery.
        generations: streams that began.
        cancelled: streams and warm-ups that were cancelled or superseded before their end.
        evictions: sessions whose computed tokens were dropped to make room.
        tokens_per_second: generated ids over the last seconds, all sessions together.
        seconds_per_id: what an id takes of this machine's cores, its share of a step of several;
            0 where the decoder computes elsewhere.
    """

    running: int = 0
    sessions: int = 0
    cached_tokens: int | None = None
    cache_capacity: int | None = None
    computed_tokens: int = 0
    reused_tokens: int = 0
    generated_tokens: int = 0
    generations: int = 0
    cancelled: int = 0
    evictions: int = 0
    tokens_per_second: float = 0.0
    seconds_per_id: float = 0.0


class Engine(Protocol):
    """A decoder that serves many sessions at once. All methods are called from one event loop."""

    @property
    def name(self) -> str:
        """`embedded`, `vllm` or `vllm-http`."""

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size)."""

    @property
    def context(self) -> int:
        """The most ids that prompt and answer may have together."""

    @property
    def alive(self) -> bool:
        """Whether it is started and can take requests now."""

    async def start(self) -> None:
        """Load the decoder and be ready to answer; does nothing on a running engine.

        Raises:
            BundleError: the checkpoint cannot be used.
            MissingDependencyError: a package that this engine needs is not installed.
            EngineError: the engine does not come up.
        """

    async def close(self) -> None:
        """End all work and free everything. Running streams raise `EngineDiedError`."""

    async def warm(self, session: str, prompt: Sequence[int]) -> int:
        """Compute the part of `prompt` that `session` has not computed; return how many ids.

        Raises:
            PromptError: see `check_prompt`.
            EngineDiedError: the engine is not running, or its worker died.
            EngineBusyError: it has no room for now.
        """

    def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        """Continue `prompt`. Work begins with the first `anext`, which also raises any error.

        The stream ends after a stop id (delivered as the last id), after `params.max_tokens` ids,
        when the context is full, or when it is cancelled or superseded.

        Raises:
            PromptError, EngineDiedError, EngineBusyError: as `warm`.
        """

    async def cancel(self, session: str) -> None:
        """Stop the session's running work, if any; its computed prefix stays reusable."""

    async def release(self, session: str) -> None:
        """End the session: stop its work and forget what it computed."""

    def reused(self, session: str) -> int:
        """How many prompt ids of the session's latest `generate` were reused; 0 after `release`.

        Known with the stream's first id (with vllm-http only at the stream's end), and 0 before.
        """

    def stats(self) -> EngineStats:
        """Counters and gauges of this moment; cheap."""


def check_prompt(prompt: Sequence[int], vocab_size: int, context: int) -> None:
    """Check that the decoder can continue `prompt` by at least one id.

    Raises:
        PromptError: it is empty, fills the context, or holds an id outside [0, vocab_size).
    """
    if not prompt:
        raise PromptError("the prompt is empty: give at least one token id")
    if len(prompt) >= context:
        raise PromptError(
            f"the prompt has {len(prompt)} ids and the context holds {context} with the answer: "
            "shorten the conversation"
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        position = next(i for i, token in enumerate(prompt) if not 0 <= token < vocab_size)
        raise PromptError(
            f"id {prompt[position]} at position {position} of the prompt is outside the decoder's "
            f"vocabulary of {vocab_size}: were bundle and decoder made for each other?"
        )
