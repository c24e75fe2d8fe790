"""The routers before decoders that deploy/ names, with its files."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from programs import FOLDER, eventually
from serving import READY_WITHIN, free_port

VLLM_ROUTER = Path(__file__).resolve().parents[2] / "deploy" / "vllm" / "vllm-router.sh"
HEALTH = {"haproxy": "/health", "vllm-router": "/readiness"}


def router_command(
    name: str, port: int, metrics: int, servers: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Starts one on these ports of loopback before two servers of these URLs; its variables."""
    if name == "haproxy":
        places = [server.removeprefix("http://") for server in servers]
        environment = {f"VLLM_{n}": place for n, place in enumerate(places, 1)}
        environment |= {"VLLM_BIND": f"127.0.0.1:{port}", "STATS_BIND": f"127.0.0.1:{metrics}"}
        return ["haproxy", "-db", "-f", str(FOLDER / "vllm.cfg")], environment
    command = [str(VLLM_ROUTER), "--host", "127.0.0.1", "--port", str(port)]
    return [*command, "--prometheus-port", str(metrics), "--worker-urls", *servers], {}


def uses_both(tells: str) -> bool:
    """Whether a router uses both of its servers, by what it tells at this URL."""
    two = r'active_servers{proxy="\w+"} 2$|"healthy_workers":2'
    try:
        return re.search(two, httpx.get(tells).text, re.M) is not None
    except httpx.TransportError:
        return False


@dataclass(frozen=True)
class Router:
    """A running one.

    Attributes:
        url: where gateways find it.
        health: the path of its health route.
        tells: the URL at which it tells of its servers.
    """

    url: str
    health: str
    tells: str


@contextmanager
def routing(name: str, servers: Sequence[str]) -> Iterator[Router]:
    """A router of this name before two servers of these URLs."""
    port, metrics = free_port(), free_port()
    command, environment = router_command(name, port, metrics, servers)
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        stats = f"http://127.0.0.1:{metrics}/metrics"
        router = Router(url, HEALTH[name], stats if name == "haproxy" else url + HEALTH[name])
        eventually(lambda: uses_both(router.tells), READY_WITHIN)
        yield router
    finally:
        process.terminate()
        process.wait()
