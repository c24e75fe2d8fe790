"""Ray on hosts of a test's own, started as an operator would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from two_hosts import Host

RAY: Final = Path(sys.executable).parent / "ray"
PORT: Final = 6379


def vllm_platform() -> str:
    """The plugin of vLLM that `cpu_for_ray` writes down."""
    return "ray_cpu_platform.RayCpuPlatform"


def cpu_for_ray(folder: Path) -> dict[str, str]:
    """Variables with which vLLM's CPU platform takes Ray; both nodes and `vllm serve` need them."""
    metadata = folder / "ray_cpu_platform-1.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: ray_cpu_platform\nVersion: 1\n"
    )
    plugin = f"[vllm.platform_plugins]\nray_cpu = {__name__}:{vllm_platform.__name__}\n"
    (metadata / "entry_points.txt").write_text(plugin)
    return {"PYTHONPATH": f"{folder}:{Path(__file__).parent}"}


@contextmanager
def ray_node(host: Host, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """One node, up; at the end nothing runs on its host any more."""
    command = [*host.inside, str(RAY), "start", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", host.address, "--object-store-memory", "100000000"]
    variables = os.environ | host.environment | environment | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *arguments], env=variables, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise RuntimeError("".join(said))
        try:
            yield process
        finally:
            host.clear()  # Ray would take half a minute


@contextmanager
def ray_cluster(head: Host, *others: Host, gpus: int = 0, **environment: str) -> Iterator[str]:
    """A head and other nodes, each with 2 CPUs and as many pretended GPUs; the head's address."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path must be short
    each = ("--num-cpus", "2", "--num-gpus", str(gpus))
    address = f"{head.address}:{PORT}"
    first = ("--head", "--port", str(PORT), "--temp-dir", folder)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(ray_node(head, *first, *each, **environment))
        for host in others:
            stack.enter_context(ray_node(host, "--address", address, *each, **environment))
        yield address
