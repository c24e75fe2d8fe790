"""Estimates whether a checkpoint fits on a machine and speaks in real time there.

A decoding step reads every weight once, so memory bandwidth over weight bytes is the roofline of
tokens a second. This is arithmetic, not measurement: real systems reach about `ROOFLINE_SHARE` of
the roofline.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from aqaa.models.errors import ConfigError
from aqaa.models.step1 import Step1Config
from aqaa.server.engine.settings import VllmSettings

SPEECH_IDS_PER_SECOND = (
    46.0  # tokens/s while an answer goes on (arXiv 2506.08967: 41.7 audio and its text)
)
OPENING_IDS_PER_SECOND = (
    69.0  # tokens/s while 10 text ids accompany each 15 audio ids: 25 in 0.36 s
)
ROOFLINE_SHARE = 0.6  # of the roofline; 0.5 to 0.7 is usual for decoding
GPU_MEMORY_SHARE = VllmSettings().gpu_memory_utilization
ACTIVATION_BYTES = 2 * 10**9  # a GPU's activations, CUDA context and graphs, about
GPUS_PER_NODE = 8  # tensor parallelism stays within a node

Quant = Literal["bf16", "fp8", "int4"]
# Bytes a weight; int4 with a scale and a zero point to each 128. The embedding and lm_head stay in
# bf16 in all of them: audio ids suffer first from a coarse lm_head.
WEIGHT_BYTES: dict[Quant, float] = {"bf16": 2.0, "fp8": 1.0, "int4": 4.25 / 8}
KV_BYTES = {"bf16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True)
class Gpu:
    """Memory in bytes as `nvidia-smi` shows it, bandwidth in bytes a second as the maker says."""

    memory: float
    bandwidth: float


def _gpu(mib: int, terabytes: float) -> Gpu:
    return Gpu(mib * 2.0**20, terabytes * 1e12)


GPUS = {
    "A100-40": _gpu(40960, 1.555),
    "A100-80": _gpu(81920, 2.039),
    "A800": _gpu(81920, 2.039),
    "B200": _gpu(183359, 8.0),
    "H100": _gpu(81559, 3.35),
    "H20": _gpu(97871, 4.0),
    "H200": _gpu(143771, 4.8),
    "H800": _gpu(81559, 3.35),
    "L20": _gpu(46068, 0.864),
    "L40S": _gpu(46068, 0.864),
    "RTX4090": _gpu(24564, 1.008),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a checkpoint is placed on a machine. Bytes are of one GPU unless said otherwise.

    Attributes:
        tensor_parallel: GPUs that share each layer.
        pipeline_parallel: groups of them that share the layers.
        weight_bytes: all weights, all GPUs.
        gpu_weight_bytes: those of one GPU.
        kv_bytes_per_token: keys and values of one id, all GPUs (replicas not counted).
        gpu_kv_bytes_per_token: those of one GPU.
        memory_share: of a GPU's memory, for vLLM.
        gpu_free_bytes: left for keys and values; negative: the weights do not fit.
        sessions_by_memory: conversations of a full context whose keys and values fit.
        sessions_by_speed: conversations of a full context that keep up with speech at
            `ROOFLINE_SHARE` of the roofline.
        roofline: the most tokens/s that one conversation can reach.
    """

    tensor_parallel: int
    pipeline_parallel: int
    weight_bytes: float
    gpu_weight_bytes: float
    kv_bytes_per_token: int
    gpu_kv_bytes_per_token: float
    memory_share: float
    gpu_free_bytes: float
    sessions_by_memory: int
    sessions_by_speed: int
    roofline: float

    @property
    def fits(self) -> bool:
        """Whether the weights and one conversation fit."""
        return self.sessions_by_memory > 0

    @property
    def sessions(self) -> int:
        """Conversations that fit and keep up with speech."""
        return min(self.sessions_by_memory, self.sessions_by_speed)


def parse_gpus(text: str) -> tuple[int, Gpu]:
    """`8xH100`, or `H100` for one.

    Raises:
        ConfigError: not of that form, or a GPU that the table lacks.
    """
    match = re.fullmatch(r"(?:(\d+)\s*[x*])?\s*([\w-]+)", text.strip(), re.IGNORECASE)
    if match is None or match[1] == "0":
        raise ConfigError(f"--gpus {text!r} is not a number and a model: write it as 8xH100")
    gpu = GPUS.get(match[2].upper())
    if gpu is None:
        raise ConfigError(f"{match[2]} is not in the table: choose one of {', '.join(GPUS)}")
    return int(match[1] or 1), gpu


def make_plan(
    config: Step1Config,
    count: int,
    gpu: Gpu,
    quant: Quant,
    kv: str,
    context: int,
    memory_share: float = GPU_MEMORY_SHARE,
) -> Plan:
    """Place the decoder of `config` on `count` GPUs.

    Args:
        config: the decoder's shape.
        count: GPUs; whole nodes of `GPUS_PER_NODE` beyond one node.
        gpu: their kind.
        quant: of the weights.
        kv: `bf16` or `fp8`, of keys and values.
        context: ids that a conversation holds.
        memory_share: of each GPU's memory that vLLM may take.

    Raises:
        ConfigError: the heads or layers cannot be divided over so many GPUs.
    """
    tensor = min(count, GPUS_PER_NODE)
    pipeline = count // tensor
    if count % tensor:
        raise ConfigError(f"{count} GPUs are not whole nodes of {GPUS_PER_NODE}: give a multiple")
    heads, groups = config.num_attention_heads, config.num_attention_groups
    # vLLM replicates groups when there are fewer than GPUs, and splits them otherwise.
    if heads % tensor or (groups % tensor and tensor % groups):
        raise ConfigError(
            f"{heads} heads in {groups} groups cannot be divided over {tensor} GPUs: "
            "choose another number"
        )
    if pipeline > config.num_hidden_layers:
        raise ConfigError(f"{pipeline} nodes are more than the decoder has layers")
    edges = 2 * config.vocab_size * config.hidden_size
    weights = edges * WEIGHT_BYTES["bf16"] + (config.parameters - edges) * WEIGHT_BYTES[quant]
    gpu_weights = weights / count
    kv_token = config.kv_per_token * KV_BYTES[kv]
    gpu_kv = kv_token / pipeline / min(tensor, groups)
    free = gpu.memory * memory_share - ACTIVATION_BYTES - gpu_weights
    # Seconds that all sessions' step may take, less those that reading the weights takes. The
    # nodes of a pipeline work one after the other on a token, each on its part of the weights.
    spare = ROOFLINE_SHARE / SPEECH_IDS_PER_SECOND - weights / tensor / gpu.bandwidth
    return Plan(
        tensor_parallel=tensor,
        pipeline_parallel=pipeline,
        weight_bytes=weights,
        gpu_weight_bytes=gpu_weights,
        kv_bytes_per_token=kv_token,
        gpu_kv_bytes_per_token=gpu_kv,
        memory_share=memory_share,
        gpu_free_bytes=free,
        sessions_by_memory=max(0, math.floor(free / (gpu_kv * context))),
        sessions_by_speed=max(0, math.floor(spare * gpu.bandwidth / (gpu_kv * pipeline * context))),
        roofline=tensor * gpu.bandwidth / weights,
    )


def vllm_settings(plan: Plan, quant: Quant, kv: str) -> VllmSettings:
    """The vLLM settings for `plan`; an int4 checkpoint names its quantisation itself."""
    return VllmSettings(
        tensor_parallel_size=plan.tensor_parallel,
        pipeline_parallel_size=plan.pipeline_parallel,
        quantization="fp8" if quant == "fp8" else None,
        kv_cache_dtype="fp8" if kv == "fp8" else "auto",
        gpu_memory_utilization=plan.memory_share,
        max_num_seqs=min(256, max(1, plan.sessions)),
    )
