"""Eight conversations while one process of a whole installation dies or freezes.

Two gateways behind haproxy, two decoders behind another or vllm-router, as deploy/ has them. Ears,
voice and decoders are scripted (test_vllm_one_process_gone has real ones); the gateways' engine
is the real one, and so are the routers and the clients. The test is the supervisor.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import httpx
import pytest
from callers import CALLERS, GAP, WORD_WITHIN, Caller, Seen, conversations, disturbed
from host_pauses import least
from programs import FOLDER, eventually, status
from routers import HEALTH, router_command, uses_both
from scripted import woven
from serving import READY_WITHIN, free_port

pytestmark = [
    pytest.mark.programs,
    pytest.mark.deep,
    pytest.mark.skipif(which("haproxy") is None, reason="needs haproxy: apt-get install haproxy"),
]

SUPPORT = Path(__file__).resolve().parents[1] / "support"
SAID = "a rather long answer"
PACE = 0.018  # seconds an id: a second of sound takes three quarters of one
AWAY = WORD_WITHIN + 0.5  # seconds until what is gone is back: too late for a word


class Program:
    """One process under supervision."""

    def __init__(self, command: list[str], health: str, **environment: str) -> None:
        self.health = health  # answers 200 when it is up
        self._command, self._environment = command, os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdout=subprocess.DEVNULL
        )

    def is_up(self) -> bool:
        return status(self.health) == 200

    def befall(self, blow: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(blow)

    def bring_back(self, blow: signal.Signals) -> None:
        """Start it anew, or let it run again."""
        if blow == signal.SIGSTOP:
            self.befall(signal.SIGCONT)
        else:
            self.stop()
            self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@dataclass
class Installation:
    """All of it. `url` is what callers know."""

    url: str
    programs: dict[str, Program]
    routers: dict[str, str]  # where each tells of its servers

    def is_whole(self) -> bool:
        """Whether both routers use both of their servers."""
        return all(map(uses_both, self.routers.values()))


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]


@pytest.fixture(scope="module", params=["haproxy", "vllm-router"])
def installation(request: pytest.FixtureRequest) -> Iterator[Installation]:
    """With this router before decoders."""
    kind: str = request.param
    ports = [free_port() for _ in range(8)]
    front, front_stats, router, router_stats, *rest = (f"127.0.0.1:{port}" for port in ports)
    gateways, decoders = rest[:2], rest[2:]
    programs = {}
    for n, place in enumerate(decoders, 1):
        host, port = place.split(":")
        ids = json.dumps(woven(SAID, 20))  # 2.4 s of sound
        command = python(str(SUPPORT / "token_server.py"), host, port, str(PACE), ids)
        programs[f"decoder {n}"] = Program(command, f"http://{place}/health")
    for n, place in enumerate(gateways, 1):
        uvicorn = ("-m", "uvicorn", "relaying_asgi:app", "--app-dir", str(SUPPORT))
        port = place.split(":")[1]
        programs[f"gateway {n}"] = Program(
            python(*uvicorn, "--port", port, "--log-level", "warning"),
            f"http://{place}/health/ready",
            AQAA_ENGINE__VLLM_HTTP__URL=f"http://{router}",
            AQAA_ENGINE__VLLM_HTTP__HEALTH_PATH=HEALTH[kind],
        )
    urls = [f"http://{place}" for place in decoders]
    command, variables = router_command(kind, ports[2], ports[3], urls)
    programs["router"] = Program(command, f"http://{router}{HEALTH[kind]}", **variables)
    programs["front"] = Program(
        ["haproxy", "-db", "-f", str(FOLDER / "gateways.cfg")],
        f"http://{front}/health/ready",
        AQAA_BIND=front,
        STATS_BIND=front_stats,
        **{f"GATEWAY_{n}": place for n, place in enumerate(gateways, 1)},
    )
    with ExitStack() as stack:
        for name in ("decoder 1", "decoder 2", "router", "gateway 1", "gateway 2", "front"):
            programs[name].start()
            stack.callback(programs[name].stop)
            if name == "router":  # gateways ask it when they start
                eventually(programs[name].is_up, READY_WITHIN)
        of_decoders = f"{router_stats}/metrics" if kind == "haproxy" else f"{router}/readiness"
        tells = {"front": f"http://{front_stats}/metrics", "router": f"http://{of_decoders}"}
        installation = Installation(f"http://{front}", programs, tells)
        eventually(installation.is_whole, READY_WITHIN)
        yield installation


@pytest.fixture
async def callers(installation: Installation) -> AsyncIterator[list[Caller]]:
    """Four at each gateway."""
    eventually(installation.is_whole, READY_WITHIN)
    async with conversations(installation.url) as callers:
        yield callers


def carried(gateway: Program) -> int:
    """How many conversations it has."""
    text = httpx.get(gateway.health.replace("/health/ready", "/metrics")).text
    found = re.search(r"^aqaa_active_sessions (\S+)", text, re.M)
    assert found is not None
    return int(float(found[1]))


async def struck(
    installation: Installation, callers: list[Caller], victim: str, blow: signal.Signals
) -> Seen:
    program = installation.programs[victim]
    seen = await disturbed(
        f"{victim} {blow.name}",
        callers,
        lambda: program.befall(blow),
        lambda: program.bring_back(blow),
        installation.is_whole,
        AWAY,
    )
    assert [turn.transcript for turn in seen.next_turns] == [SAID] * CALLERS
    return seen


BEHIND_HAPROXY = pytest.mark.parametrize("installation", ["haproxy"], indirect=True)
BLOWS = pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])


@BLOWS
async def test_a_decoder_that_is_killed_or_freezes_is_missed_by_nobody(
    installation: Installation, callers: list[Caller], blow: signal.Signals
) -> None:
    victims = itertools.cycle(("decoder 1", "decoder 2"))  # whoever left the one is at the other

    async def added_gap() -> float:
        seen = await struck(installation, callers, next(victims), blow)
        assert [turn.transcript for turn in seen.turns] == [SAID] * CALLERS
        assert seen.words == []
        return seen.added_gap

    most = GAP if blow == signal.SIGKILL else math.inf
    assert await least(added_gap, below=most) < most, "though no sound is in hand"


@BEHIND_HAPROXY
@BLOWS
async def test_a_gateway_takes_four_along_who_are_told_and_go_on_at_the_other(
    installation: Installation, callers: list[Caller], blow: signal.Signals
) -> None:
    assert carried(installation.programs["gateway 1"]) == CALLERS // 2
    seen = await struck(installation, callers, "gateway 1", blow)
    assert [turn.transcript for turn in seen.turns] == [SAID] * CALLERS
    assert len(seen.words) == CALLERS // 2
    assert max(seen.words) < WORD_WITHIN


@BEHIND_HAPROXY
@BLOWS
async def test_the_router_of_gateways_is_missed_by_all_who_are_told_and_go_on(
    installation: Installation, callers: list[Caller], blow: signal.Signals
) -> None:
    seen = await struck(installation, callers, "front", blow)
    assert [turn.transcript for turn in seen.turns] == [SAID] * CALLERS
    assert len(seen.words) == CALLERS
    assert max(seen.words) < WORD_WITHIN


@BLOWS
async def test_the_router_of_decoders_fails_answers_and_no_conversation(
    installation: Installation, callers: list[Caller], blow: signal.Signals
) -> None:
    seen = await struck(installation, callers, "router", blow)
    whole = [turn.transcript for turn in seen.turns if turn.status == "completed"]
    assert set(whole) <= {SAID}, "whose last id was there before"
    assert len(seen.words) == CALLERS - len(whole)
    assert 0 < max(seen.words) < WORD_WITHIN
