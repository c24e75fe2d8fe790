"""A platform of vLLM for tests: a CPU that Ray may place, as a pretended GPU.

vLLM's own CPU platform refuses Ray. `ray_cluster` writes down the plugin that leads here.
"""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class RayCpuPlatform(CpuPlatform):
    """Nodes are started with `--num-gpus 1`."""

    ray_device_key = "GPU"
