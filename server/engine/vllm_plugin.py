"""Entry point of vLLM's `general_plugins`: what vLLM needs to run Step-1 on a CPU.

vLLM calls `register` in each of its processes. It teaches transformers the `step1` configuration
(the published checkpoints carry it as remote code) and gives the CPU attention backend sqrt-ALiBi.
On CUDA only the former has an effect: the CPU backend is never chosen there.

Importing this module costs nothing; `register` imports what vLLM has loaded already.
"""

from __future__ import annotations

CPU_BACKEND = "aqaa.server.engine.vllm_cpu_attention.SqrtAlibiCPUBackend"


def register() -> None:
    """Register both; harmless when repeated, as vLLM's plugin contract asks."""
    from transformers import AutoConfig
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    from aqaa.server.engine.vllm_step1_config import Step1Config

    AutoConfig.register(Step1Config.model_type, Step1Config, exist_ok=True)
    register_backend(AttentionBackendEnum.CPU_ATTN, CPU_BACKEND)
