"""The server as the Compose files and the chart confine it: no home, and only /tmp to write to."""

from __future__ import annotations

import os
import subprocess
import time

import httpx
import pytest
from serving import AQAA, READY_WITHIN, free_port

from aqaa.models.bundle import nano_path

pytestmark = pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="may not make a mount namespace",
)

CONFINED = """
mount --make-rprivate /
mount -t tmpfs tmpfs /tmp
mount -o remount,ro,bind /
! touch /written 2>/dev/null || exit 3
exec "$@"
"""


def test_it_answers_on_a_read_only_root_without_a_home() -> None:
    question = next((nano_path() / "examples").glob("1-*.flac")).read_bytes()
    port = free_port()
    command = ["unshare", "-m", "sh", "-c", CONFINED, "sh", str(AQAA), "serve", "--port", str(port)]
    environment = os.environ | {"HOME": "/nonexistent"}
    with subprocess.Popen(command, env=environment) as process:
        try:
            base = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + READY_WITHIN
            while not is_ready(base):
                assert process.poll() is None, f"ended with {process.returncode}"
                assert time.monotonic() < deadline, "it did not become ready"
                time.sleep(0.2)
            answer = httpx.post(f"{base}/v1/answer", files={"file": question}, timeout=30)
            assert answer.status_code == 200
            assert len(answer.content) > 10_000
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def is_ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
