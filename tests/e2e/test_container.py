"""The server as Compose and the chart confine it: no root, no home, one small place to write to."""

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
USER = 10_001  # that no list of users names
CONFINED = f"""
mount --make-rprivate /
mount -t tmpfs tmpfs {WRITABLE}
mount -o remount,ro,bind /
! touch /written 2>/dev/null || exit 3
exec unshare --user --map-user={USER} sh -c 'test $(id -u) = {USER} && exec "$@"' sh "$@"
"""


@may_mount
def test_it_answers_a_user_without_a_name_on_a_read_only_root_without_a_home() -> None:
    port = free_port()
    command = ["unshare", "-m", "sh", "-c", CONFINED, "sh", str(AQAA), "serve", "--port", str(port)]
    environment = os.environ | {"HOME": "/nonexistent", "TMPDIR": WRITABLE}
    with subprocess.Popen(command, env=environment) as process:
        try:
            base = f"http://127.0.0.1:{port}"
            wait_until_ready(base, process)
            answer = httpx.post(f"{base}/v1/answer", files={"file": QUESTION}, timeout=30)
            assert answer.status_code == 200
            assert len(answer.content) > 10_000
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@may_mount
def test_without_a_place_to_write_to_it_says_so_in_one_line() -> None:
    script = """
    mount --make-rprivate /
    mount -o remount,ro,bind /
    for place in /tmp /var/tmp; do
        mount --bind $place $place && mount -o remount,ro,bind $place
    done
    cd / && exec "$@"
    """
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(AQAA), "serve"]
    environment = {**os.environ, "HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    ended = subprocess.run(
        command, env=environment, check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "mount one at /tmp, or name one in TMPDIR" in line


def test_it_answers_on_ipv6_alone_with_few_files_and_without_a_locale(tmp_path: Path) -> None:
    port = free_port()
    limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    command = [*limited, AQAA, "serve", "--host", "::1", "--port", str(port)]
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    log = tmp_path / "log"
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | plain) as process,
    ):
        try:
            base = f"http://[::1]:{port}"
            wait_until_ready(base, process)
            told = {"instructions": "You are \u201caqaa\u201d \u2026 \u4f60\u597d"}
            answer = httpx.post(f"{base}/v1/answer", params=told, content=QUESTION, timeout=30)
            assert answer.status_code == 200
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()
    said = log.read_text()
    assert "allows 256 open files (ulimit -n): at most 156 connections are taken" in said
    assert f"talk to it at http://localhost:{port}" in said
    assert "Traceback" not in said


def test_a_server_leaves_nothing_in_the_home_of_whoever_runs_it(tmp_path: Path) -> None:
    """onnxruntime would keep a database there, of what it reports to its makers."""
    home = tmp_path / "home"
    home.mkdir()
    with serving(tmp_path / "log", environment={"HOME": str(home)}) as base:
        assert httpx.post(f"{base}/v1/answer", files={"file": QUESTION}, timeout=30).is_success
    assert list(home.rglob("*")) == []


def wait_until_ready(base: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not is_ready(base):
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < deadline, "it did not become ready"
        time.sleep(0.2)


def is_ready(base: str) -> bool:
    try:
        return httpx.get(f"{base}/health/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
