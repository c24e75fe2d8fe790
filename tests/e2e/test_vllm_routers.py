"""The HTTP engine through each router that deploy/ names, before two scripted token servers.

Real vLLM behind them is in test_vllm_behind_routers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from shutil import which

import pytest
from engine_conformance import eventually
from routers import routing
from token_server import TokenServer, bundle_without_weights

from aqaa.models.errors import EngineBusyError, EngineDiedError
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm import http
from aqaa.server.engine.vllm.http import VllmHttpEngine

pytestmark = pytest.mark.programs


@pytest.fixture
async def servers() -> AsyncIterator[list[TokenServer]]:
    async with TokenServer() as one, TokenServer() as other:
        one.pace = other.pace = 0.01
        yield [one, other]


@pytest.fixture(params=["haproxy", "vllm-router"])
async def engine(
    request: pytest.FixtureRequest, servers: list[TokenServer], tmp_path: Path
) -> AsyncIterator[VllmHttpEngine]:
    """One before the router."""
    if which(request.param) is None:
        pytest.skip(f"needs {request.param}")
    bundle = bundle_without_weights(tmp_path)
    async with AsyncExitStack() as stack:
        opening = routing(request.param, [server.url for server in servers])
        router = await asyncio.to_thread(stack.enter_context, opening)  # servers answer meanwhile
        settings = VllmHttpSettings(
            url=router.url,
            health_path=router.health,
            busy_for=0.5,
            first_id_within=3.0,  # longer than what the machine's host takes
            next_id_within=3.0,
            give_up_after=6.0,
        )
        engine = VllmHttpEngine(bundle, settings)
        await engine.start()
        yield engine
        await engine.close()


def greedy(count: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=count)


async def read(stream: AsyncGenerator[int, None]) -> list[int]:
    async with asyncio.timeout(30), aclosing(stream):
        return [token async for token in stream]


def asked(server: TokenServer) -> set[str]:
    """The sessions that it was asked for ids by."""
    return {request.headers["x-session-id"] for request in server.generates}


async def test_a_session_stays_with_its_server_and_each_has_some(engine, servers):
    for _ in range(2):
        for n in range(12):
            await read(engine.generate(f"session-{n}", [1], greedy(2)))
    one, other = (asked(server) for server in servers)
    assert one
    assert other
    assert not one & other


async def test_an_answer_goes_on_at_the_other_server_when_its_own_dies(engine, servers):
    stream = engine.generate("session", [1], greedy(150))
    ids = [await anext(stream) for _ in range(20)]
    victim = next(server for server in servers if server.generates)
    await victim.die()
    ids += await read(stream)
    assert ids == list(range(2, 152))
    assert engine.alive


async def test_all_sessions_leave_a_decoder_that_hangs_behind_a_healthy_server_at_once(
    engine, servers, caplog, monkeypatch
):
    """Other names lead half of them back to it; nobody says so, and none waits there."""
    for server in servers:
        server.pace = 0.03  # or the test keeps this process busy
    monkeypatch.setattr(http, "SCOUTING_SECONDS", 3.0)  # nor is a slow machine a silent server
    monkeypatch.setattr(http, "PROBE_SECONDS", 3.0)
    # So many that some are led back: one in two is, by chance.
    sessions = [f"session-{n}" for n in range(24)]
    streams = [engine.generate(session, [1], greedy(40)) for session in sessions]
    begun = [[await anext(stream)] for stream in streams]
    victim = max(servers, key=lambda server: len(server.generates))
    left = len(victim.generates)
    victim.hang_after = [0] * 1000
    victim.pace = 3600
    rest = await asyncio.gather(*(read(stream) for stream in streams))
    assert [a + b for a, b in zip(begun, rest, strict=True)] == [list(range(2, 42))] * 24
    answers = [r for r in victim.generates if r.body["sampling_params"]["max_tokens"] > 1]
    assert len(victim.generates) > len(answers), "some were led back"
    assert len(answers) == left, "but by no more than a scout"
    assert caplog.text.count("no id came in time") == left


async def test_an_abort_reaches_the_server_that_answers(engine, servers):
    for n in range(4):
        stream = engine.generate(f"session-{n}", [1], greedy(1000))
        await anext(stream)
        await engine.cancel(f"session-{n}")
        await stream.aclose()

    def aborted() -> int:
        return sum("abort" in r.path for server in servers for r in server.requests)

    await eventually(lambda: aborted() == 4)
    for server in servers:
        named = {r.body["request_ids"][0] for r in server.requests if "abort" in r.path}
        assert named == {f"generate-tokens-{r.body['request_id']}" for r in server.generates}


async def test_full_servers_are_busy_and_no_servers_are_down(engine, servers):
    for server in servers:
        server.full = True
    with pytest.raises(EngineBusyError):
        await read(engine.generate("s", [1], greedy(3)))
    assert engine.alive
    for server in servers:
        await server.die()
    await asyncio.sleep(2.5)  # the router's own checks
    with pytest.raises(EngineDiedError):
        await read(engine.generate("s", [1], greedy(3)))
    assert not engine.alive
