"""Programs of Debian packages that a test starts: haproxy with our files, a Redis server."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
from redis import Redis
from redis.exceptions import RedisError
from serving import free_port

FOLDER = Path(__file__).resolve().parents[2] / "deploy/haproxy"
PATIENCE: Final = 20.0  # seconds for anything to happen


def eventually(true: Callable[[], object], seconds: float = PATIENCE) -> float:
    """Seconds until `true()`; fails when that takes too long."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it never happened"
        time.sleep(0.02)
    return time.monotonic() - began


def status(url: str) -> int:
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.TransportError:
        return 0


@contextmanager
def running(command: list[str], **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def haproxy(name: str, bind: str, **servers: str) -> Iterator[tuple[str, str]]:
    """haproxy with a file of deploy/haproxy; the addresses of its front and of its metrics."""
    front, stats = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = ["haproxy", "-db", "-f", str(FOLDER / name)]
    with running(command, **{bind: front}, STATS_BIND=stats, **servers) as process:
        eventually(lambda: status(f"http://{stats}/metrics") == 200 or process.poll() is not None)
        assert process.poll() is None, "haproxy does not run"
        yield front, stats


@contextmanager
def redis_server(port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server that keeps nothing on disk: its URL, and its process."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    url = f"redis://127.0.0.1:{port}/0"

    def answers() -> bool:
        try:
            return bool(Redis.from_url(url).ping())
        except RedisError:
            return False

    with running([*command, "--loglevel", "warning"]) as process:
        eventually(answers)
        yield url, process
