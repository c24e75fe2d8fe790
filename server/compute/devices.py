"""Where hearing and speaking compute: what was asked for, what there is, and why it was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from aqaa.models.errors import ConfigError

GIB = 2**30
# All three models of published size took 4 GiB of an H100 at most, with graphs for batches of 32
# (docs/performance.md); CUDA's own context comes to that.
MIN_FREE_BYTES = 6 * GIB


@dataclass(frozen=True)
class Gpu:
    """A CUDA device that this process may use, and its memory that nobody has taken yet."""

    index: int
    name: str
    free_bytes: int


@dataclass(frozen=True)
class Placement:
    """A device by torch's name, and the reason in words, for the log and `aqaa inspect`."""

    device: str
    reason: str


def visible_gpus() -> list[Gpu]:
    """The CUDA devices that torch sees; none with a CPU build."""
    if not torch.cuda.is_available():
        return []
    return [
        Gpu(index, torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[0])
        for index in range(torch.cuda.device_count())
    ]


def flow_dtype(wanted: str, device: str) -> torch.dtype:
    """What the vocoder's flow computes in, of a setting "auto", "float32" or "float16"."""
    half = device != "cpu" if wanted == "auto" else wanted == "float16"
    return torch.float16 if half else torch.float32


def keep_float32(*, tf32: bool = False) -> None:
    """Let this process' CUDA kernels compute float32 as it is, not rounded to TF32's 10 bits.

    By default cuDNN's convolutions round: a tokenizer's ids would then not be the published ones.
    """
    precision = "tf32" if tf32 else "ieee"
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = precision


def place(wanted: str, gpus: Sequence[Gpu]) -> Placement:
    """The device for a setting "auto", "cpu", "cuda" or "cuda:N".

    "auto" takes the GPU with the most free memory if that is `MIN_FREE_BYTES` or more.

    Raises:
        ConfigError: the GPU that was asked for is not there.
    """
    if wanted == "cpu":
        return Placement("cpu", "as set")
    roomiest = max(gpus, key=lambda gpu: gpu.free_bytes, default=None)
    if wanted == "auto":
        if roomiest is None:
            return Placement("cpu", "torch sees no CUDA device")
        free = f"{roomiest.name} has {roomiest.free_bytes / GIB:.1f} GiB free"
        if roomiest.free_bytes < MIN_FREE_BYTES:
            return Placement(
                "cpu", f"{free}, less than the {MIN_FREE_BYTES // GIB} that are needed"
            )
        return Placement(f"cuda:{roomiest.index}", f"{free}, more than any other")
    asked = int(wanted.partition(":")[2] or 0)
    if asked not in {gpu.index for gpu in gpus}:
        seen = ", ".join(f"cuda:{gpu.index} ({gpu.name})" for gpu in gpus) or "no CUDA device"
        raise ConfigError(f"{wanted} was asked for, but torch sees {seen}: set auto or cpu")
    return Placement(f"cuda:{asked}", "as set")
