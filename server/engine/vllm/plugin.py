"""Entry point of vLLM's `general_plugins`: Step-1 on a CPU, and no process that outlives us.

vLLM calls `register` in each of its processes. It teaches transformers the `step1` configuration
(the published checkpoints carry it as remote code), gives the CPU attention backend sqrt-ALiBi,
and ends the processes that the `vllm` engine started when their starter ends. On CUDA the
backend is never chosen.

Importing this module costs nothing; `register` imports what vLLM has loaded already.
"""

from __future__ import annotations

import os
import select
import signal
import threading

CPU_BACKEND = "aqaa.server.engine.vllm.cpu_attention.SqrtAlibiCPUBackend"
OWNER = "AQAA_ENGINE_OWNER"  # process id of the gateway that started this vLLM


def register() -> None:
    """Register both, and watch the owner; harmless when repeated, as vLLM's contract asks."""
    from transformers import AutoConfig
    from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

    from aqaa.server.engine.vllm.step1_config import TransformersStep1Config

    AutoConfig.register(TransformersStep1Config.model_type, TransformersStep1Config, exist_ok=True)
    register_backend(AttentionBackendEnum.CPU_ATTN, CPU_BACKEND)
    owner = os.environ.get(OWNER)
    if owner is not None and int(owner) != os.getpid():
        threading.Thread(target=_die_with, args=(int(owner),), name=OWNER, daemon=True).start()


def _die_with(owner: int) -> None:
    """End this process when `owner` ends: vLLM's processes outlive a starter that was killed."""
    try:
        descriptor = os.pidfd_open(owner)
    except ProcessLookupError:
        pass  # it is gone already
    else:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    os.kill(os.getpid(), signal.SIGKILL)
