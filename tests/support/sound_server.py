"""A PulseAudio of a test's own, for a machine without a sound card.

Its loudspeaker goes nowhere; its microphone has what `play` plays, and else silence.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RATE = 44_100  # Hz: the one of many sound cards that is not the web's usual 48,000
UP_WITHIN = 60.0  # seconds


class SoundServer:
    """A running one, at `rate` Hz. Programs find it by `environment`."""

    rate = RATE

    def __init__(self, folder: Path) -> None:
        self.environment = {
            "PULSE_SERVER": f"unix:{folder}/socket",
            "XDG_RUNTIME_DIR": str(folder),
            "HOME": str(folder),
        }

    def play(self, recording: Path) -> None:
        """Play a recording into the microphone; returns when it is over."""
        self._run("paplay", "--device=into-microphone", str(recording))

    def is_up(self) -> bool:
        return (
            subprocess.run(["pactl", "info"], env=self._all(), capture_output=True).returncode == 0
        )

    def _run(self, *command: str) -> None:
        subprocess.run(command, env=self._all(), check=True, capture_output=True)

    def _all(self) -> dict[str, str]:
        return {**os.environ, **self.environment}


@contextmanager
def sound_server(folder: Path) -> Iterator[SoundServer]:
    """Start one, with its files in `folder`."""
    server = SoundServer(folder)
    modules = (
        f"module-native-protocol-unix socket={folder}/socket auth-anonymous=1",
        f"module-null-sink sink_name=loudspeaker rate={RATE}",
        f"module-null-sink sink_name=into-microphone rate={RATE}",
        # Browsers do not offer a sink's monitor as a microphone.
        "module-remap-source master=into-microphone.monitor source_name=microphone",
    )
    command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    with subprocess.Popen(
        [*command, *(f"--load={module}" for module in modules)],
        env={**os.environ, **server.environment},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + UP_WITHIN
            while not server.is_up():
                assert process.poll() is None, "pulseaudio does not start"
                assert time.monotonic() < deadline, "pulseaudio does not answer"
                time.sleep(0.1)
            server._run("pactl", "set-default-sink", "loudspeaker")
            server._run("pactl", "set-default-source", "microphone")
            yield server
        finally:
            process.terminate()
