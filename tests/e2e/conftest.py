"""A real server on the nano bundle, started as a user would, and recorded questions to ask it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from aqaa.models.bundle import nano_path

AQAA = Path(sys.executable).parent / "aqaa"


@dataclass(frozen=True)
class Question:
    """A recording, what is said in it, and the words of which an answer must hold one."""

    path: Path
    text: str
    words: list[str]


@pytest.fixture(scope="session")
def questions() -> list[Question]:
    folder = nano_path() / "examples"
    listed = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    return [Question(folder / q["file"], q["text"], q["words"]) for q in listed]


@pytest.fixture
def question(questions: list[Question]) -> Question:
    return questions[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`aqaa serve` on nano; its base URL. It must end with code 0 on SIGTERM."""
    port = free_port()
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [AQAA, "serve", "--port", str(port)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    base = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"aqaa serve did not become ready:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(f"{base}/health/ready", timeout=2).status_code == 200:
                break
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    yield base
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, log.read_text()[-4000:]
