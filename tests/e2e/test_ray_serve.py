"""Gateways on Ray Serve, by deploy/ray: nano in each replica, one node, a namespace of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import time
from asyncio import FIRST_COMPLETED
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from callers import CALLERS, WORD_WITHIN
from processes import called
from programs import eventually, status
from ray_cluster import ray_cluster
from serving import AQAA, Question
from two_hosts import Host, TwoHosts, can_be_made

from aqaa.clients.client import WIRE_RATE, Connection, connect
from aqaa.clients.turn import speak
from aqaa.models.errors import CapacityError
from aqaa.server.audio.files import read_audio
from aqaa.server.protocol.server_events import SessionCreated

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(not can_be_made(), reason="needs root, for network namespaces"),
]

RAY = Path(__file__).resolve().parents[2] / "deploy" / "ray"
SERVE = Path(sys.executable).parent / "serve"
log = logging.getLogger(__name__)
PLACES = CALLERS // 2  # of a replica
PATIENCE = 480.0  # seconds for a replica to be there; half a minute on a quiet machine


@dataclass
class Served:
    """The application on Serve. `url` is haproxy's, which Serve runs."""

    host: Host
    url: str
    folder: Path

    def deploy(self, **variables: str) -> None:
        """deploy/ray/gateways.yaml with a test's sizes, and quick decisions."""
        config: dict[str, Any] = yaml.safe_load((RAY / "gateways.yaml").read_text())
        [application] = config["applications"]
        places = {"AQAA_MAX_SESSIONS": str(PLACES), "AQAA_MIN_SESSIONS": str(PLACES)}
        application["runtime_env"]["env_vars"] = places | {"OMP_NUM_THREADS": "1"} | variables
        [deployment] = application["deployments"]
        assert deployment["max_ongoing_requests"] > PLACES, "above ours"
        deployment["autoscaling_config"] |= {
            "min_replicas": 1,
            "max_replicas": 2,
            "target_ongoing_requests": 2.5,  # of 4 places, as deploy/ray's 5 of 8
            "upscale_delay_s": 1,
        }
        deployment["ray_actor_options"]["num_cpus"] = 0.5
        file = self.folder / "gateways.yaml"
        file.write_text(yaml.safe_dump(config))
        command = [*self.host.inside, SERVE, "deploy", "--address", "http://127.0.0.1:8265", file]

        def is_taken() -> bool:  # by Ray's dashboard, which may still be starting
            return subprocess.run(command, check=False, capture_output=True).returncode == 0

        eventually(is_taken, PATIENCE)


def replicas(host: Host) -> list[psutil.Process]:
    """The gateways' processes."""
    return called("ServeReplica:aqaa:Gateway", host.processes())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("ray", reason="needs Ray: pip install 'aqaa[ray]'")
    folder = tmp_path_factory.mktemp("serve")
    haproxy = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3700",
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "roundrobin",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",  # 30: for balancers before it
        "PYTHONPATH": str(RAY),
    }
    with TwoHosts() as hosts, ray_cluster(hosts.first, **haproxy):
        served = Served(hosts.first, f"http://{hosts.near}:8000", folder)
        served.deploy()
        eventually(lambda: status(f"{served.url}/health/ready") == 200, PATIENCE)
        yield served


async def begun(server: Connection) -> None:
    """Until it has a session."""
    async with asyncio.timeout(PATIENCE):
        async for event in server:
            if isinstance(event, SessionCreated):
                return


async def place(served: Served, stack: AsyncExitStack, **options: Any) -> Connection:
    """A conversation, as soon as there is a place for it; `options` of the client."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                server = await stack.enter_async_context(connect(served.url, **options))
                await begun(server)
            except CapacityError:
                await asyncio.sleep(0.5)
            else:
                return server


async def test_callers_are_refused_by_us_at_once_and_replicas_follow_conversations(
    served: Served, question: Question
) -> None:
    assert len(replicas(served.host)) == 1
    async with AsyncExitStack() as stack:
        for _ in range(PLACES):
            await place(served, stack)
        asked = time.monotonic()
        with pytest.raises(CapacityError, match="places are taken"):
            async with connect(served.url) as late:
                await begun(late)
        assert time.monotonic() - asked < 5, "Serve lets it wait"
        second = await place(served, stack)
        assert len(replicas(served.host)) == 2
        answer = await speak(second, read_audio(question.path, WIRE_RATE))
        assert answer.status == "completed"


def test_two_replicas_under_a_bench(served: Served, question: Question) -> None:
    eventually(lambda: len(replicas(served.host)) == 2, PATIENCE)
    command = [AQAA, "bench", question.path, "-n", "2", "--turns", "2", "--url", served.url]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["turns"], report["broken"]) == (4, 0)


def let_run(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_replica_that_is_gone_takes_its_conversations_along_which_go_on(
    served: Served, question: Question, blow: signal.Signals
) -> None:
    wave = read_audio(question.path, WIRE_RATE)
    troubles: list[list[float]] = [[] for _ in range(CALLERS)]
    async with AsyncExitStack() as stack:
        servers = []
        for told in troubles:  # until all places of both replicas are taken
            server = await place(
                served,
                stack,
                patience=PATIENCE,
                on_trouble=lambda _, told=told: told.append(time.monotonic()),
            )
            servers.append(server)
        struck = time.monotonic()
        struck_replica = replicas(served.host)[0]
        struck_replica.send_signal(blow)
        stack.callback(let_run, struck_replica)
        going_on = [asyncio.create_task(begun(server)) for server in servers]
        others = set(going_on)
        while len(others) > PLACES:
            _, others = await asyncio.wait(others, return_when=FIRST_COMPLETED)
        log.warning("%s: another replica after %.1f s", blow.name, time.monotonic() - struck)
        for other in others:
            other.cancel()  # it has heard nothing of it
        victims = [n for n, task in enumerate(going_on) if task not in others]
        for n, told in enumerate(troubles):
            if n in victims:
                going_on[n].result()
                assert told[0] - struck < WORD_WITHIN
            else:
                assert not told
        assert (await speak(servers[victims[0]], wave)).status == "completed"


async def test_an_update_tells_a_conversation_which_goes_on_and_readiness_never_fails(
    served: Served, question: Question
) -> None:
    troubles: list[str] = []
    answers: list[int] = []

    async def watch() -> None:
        async with httpx.AsyncClient(timeout=10) as client:
            while True:
                answers.append((await client.get(f"{served.url}/health/ready")).status_code)
                await asyncio.sleep(0.2)

    opening = connect(served.url, patience=PATIENCE, on_trouble=troubles.append)
    async with opening as server:
        await begun(server)
        before = {process.pid for process in replicas(served.host)}
        watching = asyncio.create_task(watch())
        await asyncio.to_thread(served.deploy, AQAA_LOG_LEVEL="warning")
        await begun(server)  # again, at a new replica
        assert any("1012" in why for why in troubles), troubles
        answer = await speak(server, read_audio(question.path, WIRE_RATE))
        assert answer.status == "completed"
        watching.cancel()
    assert set(answers) == {200}
    eventually(lambda: not before & {p.pid for p in replicas(served.host)}, PATIENCE)
