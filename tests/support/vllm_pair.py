"""Two `vllm serve` of one model, for tests in which one of them goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
from vllm_engines import API_KEY, vllm_settings
from vllm_server import VllmServer


@contextmanager
def vllm_pair(
    model: Path, context: int, folder: Path, slow_from: int
) -> Iterator[list[VllmServer]]:
    """On a CPU each, started side by side; see `VllmServer`."""
    servers = []
    for name, cpu in zip("ab", (min, max), strict=True):
        settings = vllm_settings().model_copy(
            update={"cpu_threads_bind": str(cpu(os.sched_getaffinity(0)))}
        )
        log = folder / name / "serve.log"
        log.parent.mkdir()
        servers.append(VllmServer(model, context, settings, API_KEY, log, slow_from=slow_from))
    try:
        with ThreadPoolExecutor(2) as both:
            list(both.map(VllmServer.start, servers))
        yield servers
    finally:
        for server in servers:
            server.stop()


def busiest(servers: Sequence[VllmServer]) -> VllmServer:
    """The server that answers most of the sessions."""
    running = []
    for server in servers:
        lines = httpx.get(f"{server.url}/metrics").text.splitlines()
        mine = (line for line in lines if line.startswith("vllm:num_requests_running{"))
        running.append(sum(float(line.split()[-1]) for line in mine))
    assert max(running) > 0
    return servers[running.index(max(running))]


class Freezer:
    """Stops processes; at the end of a `with` all of them run again."""

    def __init__(self) -> None:
        self._stopped: list[psutil.Process] = []

    def __enter__(self) -> Freezer:
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()

    def freeze(self, *processes: psutil.Process) -> None:
        for process in processes:
            process.suspend()
            self._stopped.append(process)

    def thaw(self) -> None:
        while self._stopped:
            with suppress(psutil.NoSuchProcess):
                self._stopped.pop().resume()
