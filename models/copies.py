"""Copies of tensors between the CPU's memory and a GPU's that do not hold up whoever asks for them.

An ordinary copy to a GPU waits for all that was launched before it. A call of a network makes some
on its way, so its thread would launch a part, wait, and launch the next. From pinned pages, which
the system does not move, the GPU fetches by itself when its turn comes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """`tensor`, which is in the CPU's memory, on `device`, in `dtype` if one is given."""
    tensor = tensor.to(dtype or tensor.dtype)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_cpu(tensor: Tensor) -> Tensor:
    """`tensor` in the CPU's memory. The calling thread waits for what its stream computes."""
    if not tensor.is_cuda:
        return tensor.cpu()
    there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    there.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return there
