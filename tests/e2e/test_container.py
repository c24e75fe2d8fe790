"""The server as Compose and the chart confine it: no home, one small place to write to."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from serving import AQAA, READY_WITHIN, free_port, serving

from aqaa.models.bundle import nano_path

may_mount = pytest.mark.skipif(
    subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="may not make a mount namespace",
)

QUESTION = next((nano_path() / "examples").glob("1-*.flac")).read_bytes()
# In a container that place is /tmp; here the checkout itself may lie there, so it is another.
WRITABLE = "/mnt"
CONFINED = f"""
mount --make-rprivate /
mount -t tmpfs tmpfs {WRITABLE}
mount -o remount,ro,bind /
! touch /written 2>/dev/null || exit 3
exec "$@"
"""


@may_mount
def test_it_answers_on_a_read_only_root_without_a_home() -> None:
    port = free_port()
    command = ["unshare", "-m", "sh", "-c", CONFINED, "sh", str(AQAA), "serve", "--port", str(port)]
    environment = os.environ | {"HOME": "/nonexistent", "TMPDIR": WRITABLE}
    with subprocess.Popen(command, env=environment) as process:
        try:
            base = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + READY_WITHIN
            while not is_ready(base):
                assert process.poll() is None, f"ended with {process.returncode}"
                assert time.monotonic() < deadline, "it did not become ready"
                time.sleep(0.2)
            answer = httpx.post(f"{base}/v1/answer", files={"file": QUESTION}, timeout=30)
            assert answer.status_code == 200
            assert len(answer.content) > 10_000
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


def test_a_server_leaves_nothing_in_the_home_of_whoever_runs_it(tmp_path: Path) -> None:
    """onnxruntime would keep a database there, of what it reports to its makers."""
    home = tmp_path / "home"
    home.mkdir()
    with serving(tmp_path / "log", environment={"HOME": str(home)}) as base:
        assert httpx.post(f"{base}/v1/answer", files={"file": QUESTION}, timeout=30).is_success
    assert list(home.rglob("*")) == []


def is_ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
