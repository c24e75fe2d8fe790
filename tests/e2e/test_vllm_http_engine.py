"""The HTTP engine before a real `vllm serve`, with a proxy between where the network misbehaves."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator

import httpx
import pytest
import pytest_asyncio
from engine_conformance import in_pattern
from flaky_proxy import FlakyProxy
from host_pauses import least
from own_time import own_time
from vllm_engines import API_KEY, greedy, http_settings, long_prompt, read

from aqaa.models.errors import EngineBusyError, EngineDiedError, EngineError
from aqaa.server.engine.vllm.http import VllmHttpEngine
from aqaa.server.engine.vllm.wire import ABORT, GENERATE, UPSTREAM_ID

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

ENDLESS = 3000  # ids: a minute's work at the pace of `slow_steps`


@pytest_asyncio.fixture(loop_scope="session")
async def proxied(step1_bundle, vllm_server):
    """An engine that reaches the server through a proxy; both."""
    async with FlakyProxy(vllm_server.port) as proxy:
        engine = VllmHttpEngine(step1_bundle, http_settings(proxy.url))
        await engine.start()
        proxy.requests = 0
        yield engine, proxy
        await engine.close()


async def count(vllm_server, metric: str) -> int:
    """One of the server's own counts, as of its decoder's latest step."""
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"{vllm_server.url}/metrics")).text
    return sum(
        int(float(line.split()[-1]))
        for line in metrics.splitlines()
        if line.startswith(f"vllm:{metric}{{")
    )


async def until(condition, within: float) -> None:
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_an_answer_whose_connections_break_is_the_answer_without_repeats(
    proxied, vllm_http_engine
):
    prompt = long_prompt(vllm_http_engine.vocab_size, 40, seed=1)
    expected = await read(vllm_http_engine.generate("whole", prompt, greedy(30)))
    engine, proxy = proxied
    proxy.cut_after = [5, 1, 9]
    assert await read(engine.generate("cut", prompt, greedy(30))) == expected
    assert proxy.cut_after == []


@pytest.mark.parametrize("seed", [None, 3], ids=["greedy", "sampled"])
async def test_an_answer_in_a_pattern_is_the_same_wherever_its_connection_breaks(
    proxied, vllm_http_engine, seed
):
    prompt = long_prompt(vllm_http_engine.vocab_size, 40, seed=7)
    params = in_pattern(vllm_http_engine, 120, seed)
    expected = await read(vllm_http_engine.generate("whole", prompt, params))
    assert len(expected) == 120
    engine, proxy = proxied
    for events in (5, 15, 30, 60, 90):
        proxy.cut_after = [events]
        assert await read(engine.generate("cut", prompt, params)) == expected, events
        assert proxy.cut_after == []


async def test_a_full_server_is_asked_again_until_it_has_room(proxied):
    engine, proxy = proxied
    proxy.refuse = 2
    prompt = long_prompt(engine.vocab_size, 20, seed=2)
    assert len(await read(engine.generate("s", prompt, greedy(3)))) == 3
    assert proxy.requests == 3


async def test_a_server_that_stays_full_is_busy_and_nothing_is_left_behind(proxied):
    engine, proxy = proxied
    proxy.refuse = 1000
    prompt = long_prompt(engine.vocab_size, 20, seed=3)
    with pytest.raises(EngineBusyError):
        await read(engine.generate("s", prompt, greedy(3)))
    assert engine.stats().running == 0
    assert proxy.requests > 2


async def seconds_of_silence(
    engine: VllmHttpEngine, proxy: FlakyProxy, stream: AsyncGenerator[int, None]
) -> float:
    """How long the host may be silent until this answer fails. Then the engine is back."""
    proxy.speaks.clear()
    silent = own_time()
    with pytest.raises(EngineDiedError):
        async with asyncio.timeout(30):
            await read(stream)
    took = own_time() - silent
    assert not engine.alive
    proxy.speaks.set()

    async def back() -> bool:
        return engine.alive

    await until(back, within=30)  # without being asked: who is not ready gets no requests
    return took


async def test_a_host_that_falls_silent_in_mid_answer_is_dead_within_two_seconds(proxied):
    engine, proxy = proxied
    prompt = long_prompt(engine.vocab_size, 20, seed=4)

    async def seconds_until_dead() -> float:
        stream = engine.generate("s", prompt, greedy(ENDLESS))
        await anext(stream)
        return await seconds_of_silence(engine, proxy, stream)

    assert await least(seconds_until_dead, below=2) < 2
    assert len(await read(engine.generate("s", prompt, greedy(3)))) == 3


async def test_a_host_that_is_silent_from_the_first_is_dead_within_two_seconds(proxied):
    engine, proxy = proxied
    prompt = long_prompt(engine.vocab_size, 20, seed=6)

    async def seconds_until_dead() -> float:
        return await seconds_of_silence(engine, proxy, engine.generate("s", prompt, greedy(3)))

    assert await least(seconds_until_dead, below=2) < 2


async def test_cancel_stops_the_request_on_the_server(vllm_http_engine, vllm_server):
    async def idle() -> bool:
        return await count(vllm_server, "num_requests_running") == 0

    async def busy() -> bool:
        return not await idle()

    await until(idle, within=30)  # other tests' requests are gone
    before = await count(vllm_server, "generation_tokens_total")
    prompt = long_prompt(vllm_http_engine.vocab_size, 40, seed=5)
    stream = vllm_http_engine.generate("c", prompt, greedy(ENDLESS))
    reader = asyncio.create_task(read(stream))  # for the engine itself stops what nobody reads
    await until(busy, within=30)
    await vllm_http_engine.cancel("c")
    await until(idle, within=30)
    await reader
    assert await count(vllm_server, "generation_tokens_total") - before < ENDLESS


async def test_the_abort_alone_stops_a_request_whose_connection_stays(vllm_server):
    """Which counts behind a router that keeps its own connection to the server."""
    headers = {"Authorization": f"Bearer {API_KEY}"}
    sampling = {"max_tokens": ENDLESS, "ignore_eos": True, "detokenize": False}
    body = {"request_id": "q", "token_ids": [5, 6], "sampling_params": sampling, "stream": True}
    ids, reasons = 0, []
    async with (
        httpx.AsyncClient(base_url=vllm_server.url, headers=headers, timeout=60) as client,
        client.stream("POST", GENERATE, json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            for choice in json.loads(line.removeprefix("data: "))["choices"]:
                if ids == 0:
                    await client.post(ABORT, json={"request_ids": [UPSTREAM_ID.format("q")]})
                ids += len(choice["token_ids"])
                reasons.append(choice["finish_reason"])
    assert reasons[-1] == "abort"
    assert 0 < ids < ENDLESS


async def test_the_server_has_the_repetition_rule_for_it_checks_its_argument(
    vllm_http_engine, vllm_server
):
    headers = {"Authorization": f"Bearer {API_KEY}"}
    sampling = {"max_tokens": 1, "detokenize": False, "extra_args": {"repetition_aware": "maybe"}}
    async with httpx.AsyncClient(base_url=vllm_server.url, headers=headers) as client:
        answer = await client.post(GENERATE, json={"token_ids": [5], "sampling_params": sampling})
    assert answer.status_code == 400
    assert "repetition_aware" in answer.text
    params = greedy(3, repetition_aware=True)
    assert len(await read(vllm_http_engine.generate("rule", [5, 6], params))) == 3


async def test_a_wrong_key_is_said_to_be_wrong(step1_bundle, vllm_server):
    engine = VllmHttpEngine(
        step1_bundle, http_settings(vllm_server.url).model_copy(update={"api_key": "wrong"})
    )
    with pytest.raises(EngineError, match="API key"):
        await engine.start()
    assert not engine.alive


async def test_no_server_is_an_error_that_names_the_url(step1_bundle):
    engine = VllmHttpEngine(step1_bundle, http_settings("http://127.0.0.1:9"))
    with pytest.raises(EngineError, match=r"127\.0\.0\.1:9"):
        await engine.start()


async def test_the_servers_shorter_context_counts(vllm_http_engine):
    assert vllm_http_engine.context == 4096
