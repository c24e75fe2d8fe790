"""The HTTP engine before a server that breaks, hangs and refuses; the real one is in tests/e2e."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from engine_conformance import eventually
from token_server import TokenServer, bundle_without_weights

from aqaa.models.bundle import load_bundle
from aqaa.models.errors import EngineBusyError, EngineDiedError, EngineError
from aqaa.server.engine.contract import SamplingParams, traceparent
from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm import http
from aqaa.server.engine.vllm.http import VllmHttpEngine
from aqaa.server.engine.vllm.wire import UPSTREAM_ID

QUICK = {"first_id_within": 0.8, "next_id_within": 0.6, "probe_after": 0.3, "give_up_after": 1.0}
TIME_TO_PROBE = 1.5  # seconds for the next id, where the health route must be asked before
NO_SOUND = 100  # ids from here on are text, up to a long way below the first audio id


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as server:
        yield server


async def engine_of(directory: Path, server: TokenServer, **settings: Any) -> VllmHttpEngine:
    """A started engine with short patience."""
    bundle = bundle_without_weights(directory)
    engine = VllmHttpEngine(bundle, VllmHttpSettings(url=server.url, **{**QUICK, **settings}))
    await engine.start()
    server.requests.clear()
    return engine


@pytest.fixture
async def engine(tmp_path: Path, server: TokenServer) -> AsyncIterator[VllmHttpEngine]:
    engine = await engine_of(tmp_path, server)
    yield engine
    await engine.close()


def greedy(count: int, **changes: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=count, **changes)


async def read(stream: AsyncGenerator[int, None]) -> list[int]:
    async with asyncio.timeout(20), aclosing(stream):
        return [token async for token in stream]


def counted(count: int) -> list[int]:
    return list(range(NO_SOUND + 1, NO_SOUND + 1 + count))


async def test_a_broken_answer_goes_on_and_says_how_many_ids_are_there(engine, server):
    server.break_after = [5, 0, 7]
    ids = await read(engine.generate("s", [NO_SOUND], greedy(40, repetition_aware=True)))
    assert ids == counted(40)
    sampling = [request.body["sampling_params"] for request in server.generates]
    assert [s["extra_args"].get("answered", 0) for s in sampling] == [0, 5, 5, 12]
    assert [s["max_tokens"] for s in sampling] == [40, 35, 35, 28]


async def test_a_decoder_that_hangs_behind_a_healthy_server_is_left_for_another_worker(
    tmp_path, server, monkeypatch
):
    monkeypatch.setattr(http, "SCOUTING_SECONDS", 4.0)
    monkeypatch.setattr(http, "SCOUT_EVERY_SECONDS", 5.0)  # one scout, however slow the machine
    engine = await engine_of(tmp_path, server, next_id_within=TIME_TO_PROBE)
    server.hang_after = [6]
    assert await read(engine.generate("s", [NO_SOUND], greedy(20))) == counted(20)
    first, scout, rest = server.generates
    assert len({r.headers["x-session-id"] for r in (first, scout, rest)}) == 2
    assert scout.headers["x-session-id"] == rest.headers["x-session-id"]
    assert scout.body["sampling_params"]["max_tokens"] == 1
    assert any(r.path == "/health" for r in server.requests), "it was asked, and said 200"
    assert engine.alive
    await engine.close()


async def test_names_are_tried_until_one_leads_to_a_worker_that_decodes(engine, server):
    server.hang_after = [6, 0, 0, 0]
    assert await read(engine.generate("s", [NO_SOUND], greedy(20))) == counted(20)
    names = [r.headers["x-session-id"] for r in server.generates]
    assert names[:5] == ["s", "s~1", "s~2", "s~3", "s~4"]
    assert names[-1] in names[4:-1], "one that gave an id, and none waited for the one before"
    await read(engine.generate("s", [NO_SOUND], greedy(20)))
    assert server.generates[-1].headers["x-session-id"] == names[-1], "it stays there"


async def test_a_session_whose_worker_is_gone_does_not_wait_until_a_proxy_notices(engine, server):
    server.break_after = [6]
    server.pace = 0.02
    stream = engine.generate("s", [NO_SOUND], greedy(20))
    first = [await anext(stream)]
    server.gone_for = ["s", "s~1"]
    assert first + await read(stream) == counted(20)
    names = [r.headers["x-session-id"] for r in server.generates]
    assert names[:4] == ["s", "s", "s~1", "s~2"]
    assert names[-1] in names[3:-1]


async def test_a_decoder_that_dies_behind_its_server_is_left_for_another_worker(engine, server):
    server.fail_after = [6]
    assert await read(engine.generate("s", [NO_SOUND], greedy(20))) == counted(20)
    names = [r.headers["x-session-id"] for r in server.generates]
    assert names[0] == "s"
    assert "s" not in names[1:]


async def test_a_slow_decoder_is_found_within_the_silence_that_a_listener_bears(tmp_path, server):
    engine = await engine_of(tmp_path, server, first_id_within=1.2)
    server.hang_after = [6]
    stream = engine.generate("s", [NO_SOUND], greedy(7))
    first = [await anext(stream) for _ in range(6)]
    server.pace = http.SCOUTING_SECONDS + 0.02
    assert first + await read(stream) == counted(7)
    await engine.close()


async def test_a_name_that_fails_leads_to_the_next_at_once(tmp_path, server, monkeypatch):
    engine = await engine_of(tmp_path, server)
    monkeypatch.setattr(http, "SCOUTING_SECONDS", 60.0)
    monkeypatch.setattr(http, "SCOUT_EVERY_SECONDS", 30.0)  # longer than `read` waits
    monkeypatch.setattr(http, "FIRST_PAUSE_SECONDS", 60.0)  # what was found needs no pause either
    server.fail_after = [6]
    server.gone_for = ["s~1"]
    assert await read(engine.generate("s", [NO_SOUND], greedy(20))) == counted(20)
    names = [r.headers["x-session-id"] for r in server.generates]
    assert names == ["s", "s~1", "s~2", "s~2"]
    await engine.close()


async def test_a_decoder_that_stays_hung_fails_the_answer_whatever_the_health_route_says(
    engine, server
):
    server.hang_after = [6] + [0] * 100
    began = time.monotonic()
    with pytest.raises(EngineDiedError):
        await read(engine.generate("s", [NO_SOUND], greedy(20)))
    assert time.monotonic() - began < 4
    assert not engine.alive
    await asyncio.sleep(1.0)
    assert not engine.alive, "its health route is well, but no id comes"
    server.hang_after = []
    await eventually(lambda: engine.alive)


async def test_a_decoder_that_never_begins_fails_the_answer(engine, server):
    server.hang_after = [0] * 100
    with pytest.raises(EngineDiedError):
        await read(engine.generate("s", [NO_SOUND], greedy(20)))


async def test_unplayed_sound_buys_time_to_come_back(tmp_path, server):
    """50 audio ids are 1.2 s of sound."""
    engine = await engine_of(tmp_path, server, give_up_after=0.6)
    audio = load_bundle(tmp_path).tokens.audio_offset
    server.break_after = [50] + [0] * 4
    ids = await read(engine.generate("s", [audio], greedy(60)))
    assert ids == [audio + n for n in range(1, 61)]
    server.break_after = [50] + [0] * 4
    with pytest.raises(EngineDiedError):
        await read(engine.generate("s", [NO_SOUND], greedy(60)))
    await engine.close()


async def test_one_failed_probe_is_not_fatal(engine, server):
    server.hang_after = [3]
    server.health = 503
    assert await read(engine.generate("s", [NO_SOUND], greedy(9))) == counted(9)
    assert engine.alive


async def test_no_server_behind_a_proxy_is_down_and_not_full(tmp_path, server):
    engine = await engine_of(tmp_path, server, busy_for=0.2)
    server.full, server.health = True, 503
    with pytest.raises(EngineDiedError, match="no vLLM server is left"):
        await read(engine.generate("s", [NO_SOUND], greedy(9)))
    assert not engine.alive
    server.health = 200
    await eventually(lambda: engine.alive)
    with pytest.raises(EngineBusyError):
        await read(engine.generate("s", [NO_SOUND], greedy(9)))
    assert engine.alive, "a full server is up"
    await engine.close()


async def test_a_503_inside_a_stream_is_busy_and_asked_again(engine, server):
    server.busy_in_stream = 2
    assert await read(engine.generate("s", [NO_SOUND], greedy(4))) == counted(4)
    server.busy_in_stream = 1000
    with pytest.raises(EngineBusyError):
        await read(engine.generate("s", [NO_SOUND], greedy(4)))


async def test_the_path_of_the_health_route_is_a_setting(tmp_path, server):
    bounds = {"next_id_within": TIME_TO_PROBE}
    engine = await engine_of(tmp_path, server, health_path="/readiness", **bounds)
    server.hang_after = [2]
    await read(engine.generate("s", [NO_SOUND], greedy(4)))
    probes = {r.path for r in server.requests} - {r.path for r in server.generates}
    assert "/readiness" in probes
    assert "/health" not in probes
    await engine.close()


async def test_every_request_of_a_session_carries_its_name_and_the_abort_that_of_the_request(
    engine, server
):
    server.pace = 0.05
    token = traceparent.set("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    stream = engine.generate("ann/7", [NO_SOUND], greedy(500))
    await anext(stream)
    traceparent.reset(token)
    await asyncio.sleep(0.3)
    await engine.cancel("ann/7")
    await eventually(lambda: any("abort" in r.path for r in server.requests))
    generate = server.generates[0]
    abort = next(r for r in server.requests if "abort" in r.path)
    name = generate.body["request_id"]
    assert generate.headers["x-request-id"] == name
    assert generate.headers["traceparent"].startswith("00-0af7")
    assert abort.body == {"request_ids": [UPSTREAM_ID.format(name)]}
    assert {r.headers["x-session-id"] for r in (generate, abort)} == {"ann/7"}


async def test_an_answer_takes_no_task_for_each_event(engine, server, monkeypatch):
    made = []
    loop = asyncio.get_running_loop()
    create_task = loop.create_task

    def counted_task(coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(coro)
        return create_task(coro, **kwargs)

    stream = engine.generate("s", [NO_SOUND], greedy(400))
    await anext(stream)
    monkeypatch.setattr(loop, "create_task", counted_task)
    assert len(await read(stream)) == 399
    engines = [coro for coro in made if "aqaa" in getattr(coro, "cr_code", None).co_filename]
    assert len(engines) < 40  # a request or two for each time that the buffer was full


async def test_a_password_in_the_url_is_sent_and_told_nobody(
    tmp_path: Path, server: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    url = server.url.replace("://", "://me:hunter2@")
    engine = VllmHttpEngine(bundle_without_weights(tmp_path), VllmHttpSettings(url=url, **QUICK))
    await engine.start()
    assert await read(engine.generate("s", [NO_SOUND], greedy(3))) == counted(3)
    assert server.generates[-1].headers["authorization"].startswith("basic ")
    await server.die()
    with pytest.raises(EngineDiedError) as gone:
        await read(engine.generate("s", [NO_SOUND], greedy(3)))
    await engine.close()
    assert "hunter2" not in caplog.text + str(gone.value)


async def test_a_proxy_of_the_environment_does_not_stand_before_a_decoder_of_this_machine(
    tmp_path: Path, server: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    engine = await engine_of(tmp_path, server)
    assert await read(engine.generate("s", [NO_SOUND], greedy(3))) == counted(3)
    await engine.close()


def test_a_url_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"vllm_http\.url"):
        VllmHttpEngine(bundle_without_weights(tmp_path), VllmHttpSettings(url="http://gpu:port"))
