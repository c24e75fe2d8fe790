"""What every engine must do. A test module subclasses `EngineConformance` for its engine.

The subclass gives a fixture `engine`: a started engine over `tiny_step1`'s checkpoint with
`VOCABULARY` ids, or a larger one, and a context of `CONTEXT`. All tests of the class may share it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest
from host_pauses import HOST_SECONDS

from aqaa.models.bundle import TokensConfig
from aqaa.models.errors import EngineDiedError, PromptError
from aqaa.models.groups import AUDIO_CODES
from aqaa.server.engine.contract import Engine, SamplingParams
from aqaa.server.engine.pattern import AnswerPattern

CONTEXT = 4096
VOCABULARY = 6144  # room for all audio ids
PATIENCE = 60.0  # seconds for anything to happen; only a hang takes so long
UNREAD = 200  # no engine runs further ahead of its reader

_keys = itertools.count()


def a_session() -> str:
    """A key that no other test uses."""
    return f"session-{next(_keys)}"


def a_prompt(engine: Engine, length: int, seed: int = 0) -> list[int]:
    """Random ids; the same seed gives the same beginning."""
    draw = random.Random(seed)
    return [draw.randrange(engine.vocab_size) for _ in range(length)]


def greedy(tokens: int, **changes: object) -> SamplingParams:
    """The likeliest ids, so many of them."""
    return SamplingParams(temperature=0.0, max_tokens=tokens, **changes)  # type: ignore[arg-type]


def in_pattern(engine: Engine, tokens: int, seed: int | None) -> SamplingParams:
    """An answer of so many ids in a bundle's pattern; greedy without a seed."""
    audio = TokensConfig(audio_offset=engine.vocab_size - AUDIO_CODES, audio_start=5)
    return SamplingParams(
        temperature=0.0 if seed is None else 1.0,
        max_tokens=tokens,
        seed=seed,
        pattern=AnswerPattern.of(audio),
    )


async def answer(
    engine: Engine, prompt: list[int], params: SamplingParams, session: str | None = None
) -> list[int]:
    """The whole stream."""
    stream = engine.generate(session or a_session(), prompt, params)
    async with asyncio.timeout(PATIENCE), aclosing(stream):
        return [token async for token in stream]


async def rest_of(stream: AsyncGenerator[int, None]) -> list[int]:
    """All that still comes."""
    return [token async for token in stream]


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - engines tell nobody when counters change
            await asyncio.sleep(0.01)


class EngineConformance:
    """The shared suite."""

    grain = 1  # an engine that reuses whole blocks may compute up to one block more

    async def kill(self, engine: Engine) -> None:
        """End the decoder the hard way, in the middle of its work."""
        raise NotImplementedError

    async def revive(self, engine: Engine) -> None:
        """What its owner does then."""
        await engine.start()

    async def computed_by(self, engine: Engine, prompt: list[int], session: str) -> int:
        """How many prompt ids the engine computes to continue `prompt`."""
        before = engine.stats().computed_tokens
        await answer(engine, prompt, greedy(1), session)
        return engine.stats().computed_tokens - before

    async def test_a_greedy_answer_is_the_same_in_every_session(self, engine: Engine) -> None:
        prompt = a_prompt(engine, 40)
        assert await answer(engine, prompt, greedy(32)) == await answer(engine, prompt, greedy(32))

    async def test_an_answer_ends_after_max_tokens(self, engine: Engine) -> None:
        assert len(await answer(engine, a_prompt(engine, 10), greedy(17))) == 17

    async def test_a_stop_id_is_delivered_and_is_the_last(self, engine: Engine) -> None:
        prompt = a_prompt(engine, 30)
        free = await answer(engine, prompt, greedy(12))
        stop = free[6]
        expected = free[: free.index(stop) + 1]
        assert await answer(engine, prompt, greedy(12, stop_ids=(stop,))) == expected

    async def test_an_answer_ends_when_the_context_is_full(self, engine: Engine) -> None:
        prompt = a_prompt(engine, engine.context - 5)
        assert len(await answer(engine, prompt, greedy(50))) == 5

    async def test_a_seed_makes_a_sampled_answer_repeatable(self, engine: Engine) -> None:
        prompt = a_prompt(engine, 20)

        async def sampled(seed: int) -> list[int]:
            params = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=24, seed=seed)
            return await answer(engine, prompt, params)

        assert await sampled(1) == await sampled(1)
        assert await sampled(1) != await sampled(2)

    @pytest.mark.parametrize("cut", [5, 15, 30, 60, 90])
    @pytest.mark.parametrize("seed", [None, 3], ids=["greedy", "sampled"])
    async def test_a_cut_answer_goes_on_as_the_uncut_one(
        self, engine: Engine, cut: int, seed: int | None
    ) -> None:
        prompt = a_prompt(engine, 40, seed=18)
        params = in_pattern(engine, 120, seed)
        whole = await answer(engine, prompt, params)
        assert len(whole) == 120
        rest = await answer(engine, [*prompt, *whole[:cut]], params.after(cut))
        assert whole[:cut] + rest == whole

    async def test_many_sessions_are_answered_at_once(self, engine: Engine) -> None:
        prompts = [a_prompt(engine, 20 + 7 * seed, seed) for seed in range(6)]
        answers = await asyncio.gather(*(answer(engine, p, greedy(20)) for p in prompts))
        assert [len(ids) for ids in answers] == [20] * 6

    async def test_after_a_warm_up_only_what_was_added_is_computed(self, engine: Engine) -> None:
        session, prompt = a_session(), a_prompt(engine, 1000, seed=11)
        assert await engine.warm(session, prompt) == 1000
        assert 20 <= await self.computed_by(engine, prompt + [7] * 20, session) < 20 + self.grain

    async def test_a_growing_prompt_is_computed_once(self, engine: Engine) -> None:
        session, prompt = a_session(), a_prompt(engine, 400, seed=12)
        computed = [await engine.warm(session, prompt[:n]) for n in range(50, 401, 50)]
        assert sum(computed) < 400 + len(computed) * self.grain

    async def test_a_rollback_to_an_older_prefix_reuses_it(self, engine: Engine) -> None:
        session, prompt = a_session(), a_prompt(engine, 1000, seed=13)
        await engine.warm(session, prompt)
        await answer(engine, prompt + [7] * 30, greedy(10), session)
        assert 20 <= await self.computed_by(engine, prompt + [8] * 20, session) < 20 + self.grain

    async def test_a_cancelled_speculation_costs_the_next_prompt_nothing(
        self, engine: Engine
    ) -> None:
        session, prompt = a_session(), a_prompt(engine, 500, seed=14)
        speculation = engine.generate(session, prompt + [7] * 10, greedy(2000))
        await anext(speculation)
        await engine.cancel(session)
        assert 15 <= await self.computed_by(engine, prompt + [8] * 15, session) < 15 + self.grain
        await speculation.aclose()

    async def test_every_prompt_id_is_counted_as_computed_or_reused(self, engine: Engine) -> None:
        session, prompt = a_session(), a_prompt(engine, 90, seed=15)
        before = engine.stats()
        await answer(engine, prompt, greedy(1), session)
        await answer(engine, [*prompt, 5], greedy(1), session)
        after = engine.stats()
        computed = after.computed_tokens - before.computed_tokens
        assert computed + after.reused_tokens - before.reused_tokens == 90 + 91

    async def test_an_answer_tells_how_much_of_its_prompt_was_computed(
        self, engine: Engine
    ) -> None:
        session, prompt = a_session(), a_prompt(engine, 200, seed=17)
        await answer(engine, prompt, greedy(1), session)
        assert engine.reused(session) == 0
        await answer(engine, [*prompt, 5], greedy(1), session)
        assert 200 - self.grain < engine.reused(session) <= 200
        await engine.release(session)
        assert engine.reused(session) == 0

    async def test_a_new_answer_supersedes_the_old_one_quietly(self, engine: Engine) -> None:
        session = a_session()
        old = engine.generate(session, a_prompt(engine, 30), greedy(2000))
        await anext(old)
        assert len(await answer(engine, a_prompt(engine, 35), greedy(5), session)) == 5
        assert await rest_of(old) == []

    async def test_a_superseded_warm_up_returns(self, engine: Engine) -> None:
        session, prompt = a_session(), a_prompt(engine, 2000, seed=16)
        warm = asyncio.create_task(engine.warm(session, prompt))
        await asyncio.sleep(0)
        assert len(await answer(engine, a_prompt(engine, 12), greedy(3), session)) == 3
        async with asyncio.timeout(PATIENCE):
            assert 0 <= await warm <= 2000

    async def test_cancel_ends_the_stream(self, engine: Engine) -> None:
        session = a_session()
        stream = engine.generate(session, a_prompt(engine, 30), greedy(2000))
        await anext(stream)
        await engine.cancel(session)
        assert await rest_of(stream) == []
        assert engine.stats().running == 0

    async def test_cancel_of_an_idle_or_unknown_session_is_nothing(self, engine: Engine) -> None:
        await engine.cancel(a_session())
        await engine.release(a_session())

    async def test_closing_the_stream_stops_the_work(self, engine: Engine) -> None:
        stream = engine.generate(a_session(), a_prompt(engine, 30), greedy(2000))
        await anext(stream)
        await stream.aclose()
        await eventually(lambda: engine.stats().running == 0)
        generated = engine.stats().generated_tokens
        assert len(await answer(engine, a_prompt(engine, 25), greedy(20))) == 20
        assert engine.stats().generated_tokens == generated + 20

    async def test_a_reader_that_is_cancelled_stops_the_work(self, engine: Engine) -> None:
        reader = asyncio.create_task(answer(engine, a_prompt(engine, 30), greedy(2000)))
        await eventually(lambda: engine.stats().running == 1)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        await eventually(lambda: engine.stats().running == 0)

    async def test_a_stream_that_nobody_reads_waits_and_then_goes_on(self, engine: Engine) -> None:
        prompt = a_prompt(engine, 25)
        whole = await answer(engine, prompt, greedy(2 * UNREAD))
        before = engine.stats().generated_tokens
        stream = engine.generate(a_session(), prompt, greedy(2 * UNREAD))
        first = await anext(stream)
        other = await answer(engine, prompt, greedy(2 * UNREAD))  # the two would end together
        assert engine.stats().generated_tokens - before - len(other) <= UNREAD
        assert [first, *await rest_of(stream)] == whole

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda engine: [], id="empty"),
            pytest.param(lambda engine: [1] * engine.context, id="as long as the context"),
            pytest.param(lambda engine: [1, engine.vocab_size], id="beyond the vocabulary"),
            pytest.param(lambda engine: [1, -1], id="negative"),
        ],
    )
    async def test_a_bad_prompt_is_refused_and_leaves_nothing(
        self, engine: Engine, spoil: Callable[[Engine], list[int]]
    ) -> None:
        before = engine.stats()
        with pytest.raises(PromptError):
            await engine.warm(a_session(), spoil(engine))
        with pytest.raises(PromptError):
            await answer(engine, spoil(engine), greedy(5))
        after = engine.stats()
        assert (after.running, after.sessions) == (0, before.sessions)

    async def test_death_in_mid_answer_is_one_typed_error_and_the_next_request_works(
        self, engine: Engine
    ) -> None:
        stream = engine.generate(a_session(), a_prompt(engine, 30), greedy(3000))
        await anext(stream)
        await self.kill(engine)
        with pytest.raises(EngineDiedError):
            await asyncio.wait_for(rest_of(stream), timeout=2.0 + HOST_SECONDS)
        await self.revive(engine)
        assert len(await answer(engine, a_prompt(engine, 30), greedy(4))) == 4
