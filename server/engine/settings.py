"""The operator's settings of the engines, each default with its reason."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

EngineName = Literal["auto", "embedded", "vllm", "vllm-http"]
Positive = Annotated[int, Field(gt=0)]


class EmbeddedSettings(BaseModel):
    """The in-process PyTorch engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: Positive = Field(
        default=1,
        description="threads that step conversations, one each; leave cores for the vocoder",
    )
    cache_mb: Positive = Field(
        default=1024,
        description="of keys and values, over all sessions; nano needs about 3 MB for 1,000 ids",
    )


class AnswerBounds(BaseModel):
    """How long an answer may be silent, wherever vLLM runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_id_within: float = Field(
        default=1.3,
        gt=0,
        description="seconds that an answer's first id may take, besides half a millisecond for "
        "each id of the prompt; then vllm-http tries another connection, whatever the health route "
        "says, and vllm fails the answer",
    )
    give_up_after: float = Field(
        default=1.5,
        gt=0,
        description="seconds without a sign of life, and without unplayed sound, before a decoder "
        "counts as dead; an answer that broke off must surface within two",
    )


class VllmSettings(AnswerBounds):
    """vLLM, in this process or as `vllm serve`; names follow vLLM's own."""

    tensor_parallel_size: Positive = 1
    pipeline_parallel_size: Positive = 1
    quantization: str | None = Field(
        default=None, description="fp8 on 8 GPUs of 80 GB is what reaches real time with 130 B"
    )
    dtype: str = Field(default="auto", description="auto: the checkpoint's own")
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_num_seqs: Positive = Field(default=64, description="conversations in one batch")
    max_num_queued_reqs: Positive | None = Field(
        default=None, description="beyond it a request is refused at once; None: it waits"
    )
    block_size: Positive = Field(
        default=16, description="ids in a block, the grain of prefix reuse: 16 are 0.38 s of speech"
    )
    enforce_eager: bool = Field(default=False, description="skip compilation: starts sooner")
    attention_backend: str | None = Field(
        default=None, description="None: TRITON_ATTN on CUDA, the one with sqrt-ALiBi"
    )
    hang_after: float = Field(
        default=30.0,
        gt=0,
        description="seconds without an id for anybody while requests run, after which a vLLM in "
        "this process is restarted; their answers have failed by then",
    )
    cpu_kv_cache_gb: float = Field(
        default=1.0, gt=0, description="on a CPU, memory for keys and values of each rank"
    )
    cpu_threads_bind: str | None = Field(
        default=None,
        description="VLLM_CPU_OMP_THREADS_BIND, such as '0-3|4-7'; None: an equal share a rank",
    )


class VllmHttpSettings(AnswerBounds):
    """A remote `vllm serve --enable-scale-out`, or a router before several."""

    url: str = "http://localhost:8000"
    api_key: str | None = None
    model: str | None = Field(default=None, description="None: the server's only model")
    block_size: Positive = Field(default=16, description="the server's --block-size")
    health_path: str = Field(
        default="/health",
        description="asked of a silent server; vllm-router: /readiness, for its /health is 503 "
        "while any worker is down",
    )
    connect_timeout: float = Field(default=0.5, gt=0, description="seconds")
    next_id_within: float = Field(
        default=1.0,
        gt=0,
        description="seconds that each further id may take; then another connection is tried",
    )
    probe_after: float = Field(
        default=0.5, gt=0, description="seconds of silence before the health route is asked"
    )
    busy_for: float = Field(
        default=2.0, ge=0, description="seconds of 503 answers, retried with back-off, before busy"
    )


class EngineSettings(BaseModel):
    """Which engine, and how each is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: EngineName = Field(default="auto", description="auto: the bundle's, else by machine")
    embedded: EmbeddedSettings = EmbeddedSettings()
    vllm: VllmSettings = VllmSettings()
    vllm_http: VllmHttpSettings = VllmHttpSettings()
