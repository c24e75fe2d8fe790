"""Start `aqaa serve` as a user would, and the recordings to ask it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

AQAA = Path(sys.executable).parent / "aqaa"
READY_WITHIN = 120  # seconds; generous, since the machine is shared


@dataclass(frozen=True)
class Question:
    """A recording, what is said in it, and the words of which an answer must hold one."""

    path: Path
    text: str
    words: list[str]


def _untried_ports() -> Iterator[int]:
    """Below those that the kernel gives to connections: one of them would be taken meanwhile."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(20_000, first)
    yield from random.sample(ports, len(ports))  # tests in other processes try others


_ports = _untried_ports()


def free_port() -> int:
    """One that nobody listens on, for a server that is about to start."""
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is left")


@contextmanager
def serving(
    log: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    ready_within: float = READY_WITHIN,
) -> Iterator[str]:
    """A running `aqaa serve ARGUMENTS`, with these variables too; yields its base URL.

    Raises:
        RuntimeError: it did not become ready, or did not end with code 0 on SIGTERM.
    """
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [AQAA, "serve", "--port", str(port), *arguments],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
        )
    base = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(base, process, log, ready_within)
        yield base
        process.send_signal(signal.SIGTERM)
        if (code := process.wait(timeout=60)) != 0:
            raise RuntimeError(f"aqaa serve ended with {code}:\n{log.read_text()[-4000:]}")
    finally:
        process.kill()
        process.wait()


def server_process(base: str) -> psutil.Process:
    """The running `aqaa serve` behind `base`; other tests' servers may run beside it."""
    port = base.rpartition(":")[2]
    return next(p for p in psutil.Process().children() if port in p.cmdline())


def cpu_seconds(process: psutil.Process) -> float:
    """How long it has kept a processor busy."""
    times = process.cpu_times()
    return float(times.user + times.system)


def _wait_until_ready(
    base: str, process: subprocess.Popen[bytes], log: Path, within: float
) -> None:
    deadline = time.monotonic() + within
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{base}/health/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"aqaa serve did not become ready:\n{log.read_text()[-4000:]}")
