"""What the relay makes of single requests, with a scripted decoder in the place of vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from aqaa.models.errors import EngineDiedError, PromptError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.engine.contract import MAX_UNREAD_IDS, SamplingParams
from aqaa.server.engine.vllm.answer_clock import SoundInHand
from aqaa.server.engine.vllm.relay import RelayEngine, TokenDelta

BLOCK = 16
AUDIO = 2_000


class CountingEngine(RelayEngine):
    """A decoder that continues a prompt by counting up from its last id, as fast as it is read."""

    name = "counting"

    def __init__(self) -> None:
        super().__init__(vocab_size=10_000, context=1_000, block=BLOCK, audio_offset=AUDIO)
        self.asked: list[tuple[int, ...]] = []
        self.sound_ends: list[float] = []  # of the sound in hand when it was asked
        self.open = 0
        self.dies_at: int | None = None

    @property
    def alive(self) -> bool:
        return True

    async def _ensure_running(self) -> None:
        await asyncio.sleep(0)

    async def _request(
        self, session: str, prompt: Sequence[int], params: SamplingParams, sound: SoundInHand
    ) -> AsyncGenerator[TokenDelta, None]:
        self.asked.append(tuple(prompt))
        self.sound_ends.append(sound.ends)
        self.open += 1
        try:
            yield TokenDelta(reused=len(prompt) // BLOCK * BLOCK if len(self.asked) > 1 else 0)
            for n in range(1, params.max_tokens + 1):
                await asyncio.sleep(0)
                token = prompt[-1] + n
                if token == self.dies_at:
                    raise EngineDiedError("scripted")
                last = n == params.max_tokens or token in params.stop_ids
                yield TokenDelta((token,), finished=last)
                if last:
                    return
        finally:
            self.open -= 1


def greedy(count: int, *stop: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=count, stop_ids=stop)


async def read(stream: AsyncGenerator[int, None]) -> list[int]:
    return [token async for token in stream]


async def turns(count: int = 20) -> None:
    """Let every other task run for a while."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_slow_reader_gets_the_same_ids_as_a_fast_one():
    engine = CountingEngine()
    received = []
    async for token in engine.generate("s", [0], greedy(5 * MAX_UNREAD_IDS)):
        received.append(token)
        if len(received) % 50 == 0:
            await turns(3 * MAX_UNREAD_IDS)
    assert received == list(range(1, 5 * MAX_UNREAD_IDS + 1))
    assert len(engine.asked) > 1


async def test_a_stream_that_nobody_reads_stops_asking_vllm():
    engine = CountingEngine()
    async with aclosing(engine.generate("s", [0], greedy(900))) as stream:
        assert await anext(stream) == 1
        await turns(4000)
        assert engine.open == 0
        assert engine.stats().generated_tokens <= MAX_UNREAD_IDS + 1


async def test_who_is_asked_again_for_a_slow_reader_knows_of_the_sound_in_hand():
    engine = CountingEngine()
    stream = engine.generate("s", [AUDIO], greedy(2 * MAX_UNREAD_IDS))
    await anext(stream)
    await turns(4 * MAX_UNREAD_IDS)
    assert len(await read(stream)) == 2 * MAX_UNREAD_IDS - 1
    first, again = engine.sound_ends
    assert again - first == pytest.approx(MAX_UNREAD_IDS * GROUP_SECONDS / GROUP_TOKENS, abs=0.5)


async def test_a_stop_id_that_fills_the_buffer_ends_the_stream():
    engine = CountingEngine()
    async with aclosing(engine.generate("s", [0], greedy(900, MAX_UNREAD_IDS))) as stream:
        received = [await anext(stream)]
        await turns(4000)
        received += [token async for token in stream]
    assert received == list(range(1, MAX_UNREAD_IDS + 1))


async def test_the_answer_ends_when_the_context_is_full():
    engine = CountingEngine()
    prompt = list(range(990))
    assert len(await read(engine.generate("s", prompt, greedy(500)))) == 10


async def test_a_new_request_of_a_session_ends_the_old_stream_quietly():
    engine = CountingEngine()
    old = engine.generate("s", [0], greedy(900))
    assert await anext(old) == 1
    assert await read(engine.generate("s", [5], greedy(3))) == [6, 7, 8]
    assert await read(old) == []
    assert engine.open == 0
    assert engine.stats().cancelled == 1


async def test_a_superseded_stream_that_has_not_begun_never_asks_vllm():
    engine = CountingEngine()
    streams = [asyncio.create_task(read(engine.generate("s", [n], greedy(2)))) for n in (1, 2, 3)]
    results = await asyncio.gather(*streams)
    assert results[-1] == [4, 5]
    assert results[:-1] == [[], []]
    assert engine.stats().running == 0


async def test_cancel_aborts_the_request_and_ends_the_stream():
    engine = CountingEngine()
    stream = engine.generate("s", [0], greedy(900))
    await anext(stream)
    await engine.cancel("s")
    assert engine.open == 0
    assert await read(stream) == []


async def test_closing_a_stream_aborts_its_request():
    engine = CountingEngine()
    async with aclosing(engine.generate("s", [0], greedy(900))) as stream:
        await anext(stream)
    assert engine.open == 0
    assert engine.stats().running == 0


async def test_sessions_do_not_disturb_each_other():
    engine = CountingEngine()
    streams = [read(engine.generate(str(n), [n], greedy(100))) for n in range(20)]
    for n, received in enumerate(await asyncio.gather(*streams)):
        assert received == list(range(n + 1, n + 101))


async def test_a_death_reaches_the_reader_after_the_ids_that_came_before_it():
    engine = CountingEngine()
    engine.dies_at = 8
    stream = engine.generate("s", [0], greedy(900))
    received = [await anext(stream) for _ in range(7)]
    with pytest.raises(EngineDiedError, match="scripted"):
        await anext(stream)
    assert received == [1, 2, 3, 4, 5, 6, 7]


async def test_a_fault_that_is_nobodys_plan_reaches_the_reader_too():
    class BrokenEngine(CountingEngine):
        async def _ensure_running(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read(BrokenEngine().generate("s", [0], greedy(3)))


async def test_warming_again_asks_vllm_only_when_a_block_is_complete():
    engine = CountingEngine()
    prompt = list(range(100, 100 + 3 * BLOCK))
    assert await engine.warm("s", prompt[: 2 * BLOCK]) == 2 * BLOCK
    assert await engine.warm("s", prompt[: 3 * BLOCK - 1]) == 0
    assert len(engine.asked) == 1
    await engine.warm("s", prompt)
    assert len(engine.asked) == 2


async def test_a_warm_up_of_another_prompt_is_asked_anew():
    engine = CountingEngine()
    await engine.warm("s", [1] * BLOCK)
    await engine.warm("s", [2] * BLOCK)
    assert len(engine.asked) == 2


async def test_a_prompt_that_is_asked_again_for_a_slow_reader_does_not_count_as_reused():
    engine = CountingEngine()
    stream = engine.generate("s", [0], greedy(3 * MAX_UNREAD_IDS))
    await anext(stream)
    await turns(4 * MAX_UNREAD_IDS)
    assert len(await read(stream)) == 3 * MAX_UNREAD_IDS - 1
    assert len(engine.asked) > 1
    assert engine.reused("s") == 0


async def test_a_released_session_leaves_nothing():
    engine = CountingEngine()
    for n in range(50):
        await engine.warm(f"s{n}", [1] * BLOCK)
        await engine.release(f"s{n}")
    assert engine.stats().sessions == 0
    assert engine.stats().running == 0


async def test_a_release_whose_caller_is_cancelled_leaves_nothing_either():
    engine = CountingEngine()
    await engine.warm("s", [1] * BLOCK)
    stream = engine.generate("s", [1] * BLOCK, greedy(900))
    await anext(stream)
    assert (engine.stats().sessions, engine.reused("s")) == (1, BLOCK)
    release = asyncio.create_task(engine.release("s"))
    await asyncio.sleep(0)
    release.cancel()
    await asyncio.gather(release, return_exceptions=True)
    await turns()
    assert (engine.stats().sessions, engine.reused("s")) == (0, 0)


@pytest.mark.parametrize("prompt", [[], [10_000], [-1], [0] * 1_000])
async def test_a_bad_prompt_is_refused_before_vllm_sees_it(prompt):
    engine = CountingEngine()
    with pytest.raises(PromptError):
        await read(engine.generate("s", prompt, greedy(1)))
    with pytest.raises(PromptError):
        await engine.warm("s", prompt)
    assert engine.asked == []
    assert engine.stats().running == 0
