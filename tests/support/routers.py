"""The routers before decoders that deploy/ names, with its files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from programs import FOLDER, eventually, status
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


@contextmanager
def routing(name: str, servers: Sequence[str]) -> Iterator[str]:
    """A router of this name before two servers of these URLs; its own."""
    port = free_port()
    command, environment = router_command(name, port, free_port(), servers)
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: status(url + HEALTH[name]) == 200, READY_WITHIN)
        yield url
    finally:
        process.terminate()
        process.wait()
