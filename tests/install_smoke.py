"""Proof that the wheel is whole: run with the Python of a venv that holds nothing but the wheel.

Starts `aqaa serve`, asks it a question over REST, and checks that sound comes back.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from importlib.metadata import entry_points, version
from pathlib import Path

import numpy as np

MODULES = (
    "aqaa.models.bundle",
    "aqaa.tokenizers.dual",
    "aqaa.vocoder.vocoder",
    "aqaa.server.engine.embedded.engine",
    "aqaa.server.protocol.server_events",
    "aqaa.clients.client",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(base: str, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"aqaa serve ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{base}/health/ready", timeout=2) as reply:
                if reply.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("aqaa serve was not ready in time")


def check_routes(base: str) -> None:
    """The routes are those of the FastAPI that the wheel brings, which may not be the tests'."""
    refused = None
    try:
        urllib.request.urlopen(f"{base}/v1/chat/completions", timeout=10)
    except urllib.error.HTTPError as error:
        refused = error.code, error.headers["allow"]
    assert refused == (405, "POST"), f"a GET where only a POST may be: {refused}"


def main() -> None:
    for name in MODULES:
        importlib.import_module(name)
    assert any(entry.name == "aqaa" for entry in entry_points(group="console_scripts"))
    aqaa = Path(sys.executable).parent / "aqaa"
    shown = subprocess.run([aqaa, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == version("aqaa"), shown
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([aqaa, "serve", "--port", str(port)], env=os.environ)
    try:
        wait_until_ready(base, server)
        check_routes(base)
        body = {
            "model": "nano",
            "modalities": ["text", "audio"],
            "audio": {"voice": "joe", "format": "wav"},
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        }
        request = urllib.request.Request(
            f"{base}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            message = json.load(reply)["choices"][0]["message"]
        import base64

        with wave.open(io.BytesIO(base64.b64decode(message["audio"]["data"]))) as sound:
            pcm = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
            seconds = sound.getnframes() / sound.getframerate()
        assert seconds > 0.3, f"the answer is only {seconds:.2f} s long"
        assert np.abs(pcm.astype(np.int32)).max() > 1000, "the answer is silent"
        with urllib.request.urlopen(f"{base}/", timeout=10) as page:
            assert b"<html" in page.read().lower()
        print(f"smoke: {seconds:.2f} s of sound, text {message['audio']['transcript']!r}")
    finally:
        server.terminate()
        assert server.wait(timeout=30) == 0, "aqaa serve did not stop cleanly on SIGTERM"
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
