"""vLLM's engine arguments, one list for both ways of running it: in-process and `vllm serve`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.settings import VllmSettings

CUDA_ATTENTION = "TRITON_ATTN"  # the only CUDA backend that has sqrt-ALiBi (vLLM 0.32)
LOGITS_PROCESSORS = (
    "aqaa.server.engine.vllm.repetition:RepetitionAware",
    "aqaa.server.engine.vllm.pattern:KeepsPattern",
    "aqaa.server.engine.vllm.seeded_draw:SeededDraw",  # the last: it draws from what they leave
)


def engine_arguments(
    model: Path, context: int, settings: VllmSettings, *, cuda: bool
) -> dict[str, Any]:
    """Keyword arguments of vLLM's `EngineArgs` for the decoder in `model`."""
    arguments: dict[str, Any] = {
        "model": str(model),
        "skip_tokenizer_init": True,  # token ids in and out
        "generation_config": "vllm",  # sampling comes with each request, not from the checkpoint
        "enable_prefix_caching": True,
        "max_model_len": context,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "pipeline_parallel_size": settings.pipeline_parallel_size,
        "dtype": settings.dtype,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "max_num_seqs": settings.max_num_seqs,
        "block_size": settings.block_size,
        "enforce_eager": settings.enforce_eager,
        "logits_processors": [*LOGITS_PROCESSORS],
    }
    if cuda:
        arguments["attention_backend"] = settings.attention_backend or CUDA_ATTENTION
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    else:
        arguments["kv_cache_memory_bytes"] = int(settings.cpu_kv_cache_gb * 2**30)
    if settings.quantization is not None:
        arguments["quantization"] = settings.quantization
    if settings.max_num_queued_reqs is not None:
        arguments["max_num_queued_reqs"] = settings.max_num_queued_reqs
    return arguments


def sampling_arguments(params: SamplingParams) -> dict[str, Any]:
    """Keyword arguments of vLLM's `SamplingParams`, JSON-ready; only our stop ids end an answer.

    A seeded answer is drawn by `seeded_draw`, and vLLM takes the one id that is left: vLLM's own
    generators begin anew in each request, so a cut answer would not go on as the uncut one.
    """
    draws = params.seed is not None and params.temperature > 0
    return {
        "temperature": 0.0 if draws else params.temperature,
        "top_p": 1.0 if draws else params.top_p,
        "max_tokens": params.max_tokens,
        "stop_token_ids": list(params.stop_ids),
        "ignore_eos": True,
        "detokenize": False,
        "extra_args": _extra_arguments(params, draws),
    }


def _extra_arguments(params: SamplingParams, draws: bool) -> dict[str, Any] | None:
    """What our logits processors read; None if the request needs none of them."""
    extra: dict[str, Any] = {}
    if params.repetition_aware:
        extra["repetition_aware"] = True
    if params.pattern is not None:
        extra["answer_pattern"] = asdict(params.pattern)
    if params.calls is not None:
        extra["calls"] = asdict(params.calls)
    if draws:
        extra["seeded_draw"] = {
            "seed": params.seed,
            "temperature": params.temperature,
            "top_p": params.top_p,
        }
    if extra and params.answered:
        extra["answered"] = params.answered
    return extra or None


def engine_environment(settings: VllmSettings, *, cuda: bool) -> dict[str, str]:
    """Environment variables that vLLM's processes need for it."""
    environment = {
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the repetition rule is written for V1
        "VLLM_NO_USAGE_STATS": "1",  # vLLM reports to its authors unless told not to
    }
    if not cuda:
        ranks = settings.tensor_parallel_size * settings.pipeline_parallel_size
        bind = settings.cpu_threads_bind or share_cpus(sorted(os.sched_getaffinity(0)), ranks)
        environment["VLLM_CPU_OMP_THREADS_BIND"] = bind
    return environment


def traces_endpoint(variables: Mapping[str, str]) -> str | None:
    """Where OpenTelemetry's variables say that spans go, by OTLP over HTTP; None: nowhere."""
    if endpoint := variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return endpoint
    base = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None


def share_cpus(cpus: list[int], ranks: int) -> str:
    """An equal share of `cpus` for each rank, as VLLM_CPU_OMP_THREADS_BIND writes it.

    vLLM's own "auto" keeps a CPU back and wants a NUMA node a rank, which small machines lack.
    """
    share = len(cpus) // ranks
    if share == 0:
        return "nobind"
    return "|".join(
        ",".join(str(cpu) for cpu in cpus[rank * share : (rank + 1) * share])
        for rank in range(ranks)
    )


def serve_command(
    model: Path, context: int, settings: VllmSettings, *, cuda: bool, port: int = 8000
) -> list[str]:
    """The `vllm serve` command whose server the `vllm-http` engine can use.

    `engine_environment` belongs to it.
    """
    arguments = engine_arguments(model, context, settings, cuda=cuda)
    command = ["vllm", "serve", arguments.pop("model"), "--port", str(port)]
    # token ids over HTTP, and how many of them the prefix cache held
    command += ["--enable-scale-out", "--enable-prompt-tokens-details"]
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif isinstance(value, list):
            command += [flag, *value]
        elif value is not False:
            command += [flag, str(value)]
    return command


_environment = threading.Lock()


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that the operator has not set, for processes that are started inside.

    One thread at a time: an engine that starts meanwhile would take ours for the operator's.
    """
    with _environment:
        added = {name: value for name, value in values.items() if name not in os.environ}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                os.environ.pop(name, None)
