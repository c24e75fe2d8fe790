"""Copies to and from a GPU's memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aqaa.models.copies import to_cpu, to_device

CPU = torch.device("cpu")
GPU = torch.device("cuda:0")


def test_on_a_cpu_nothing_is_copied() -> None:
    tensor = torch.ones(3)
    assert to_device(tensor, CPU) is tensor
    assert to_cpu(tensor) is tensor


def test_a_dtype_may_be_asked_for() -> None:
    assert to_device(torch.tensor([True, False]), CPU, torch.float16).tolist() == [1.0, 0.0]
    assert to_device(torch.ones(3), CPU, torch.float16).dtype == torch.float16


def test_a_gpu_fetches_from_pinned_pages_and_nobody_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[object] = []

    def to(tensor: Tensor, where: object, **how: object) -> Tensor:
        done.append((where, how))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: done.append("pinned") or tensor)
    monkeypatch.setattr(Tensor, "to", to)
    to_device(torch.ones(3), GPU, torch.float64)
    assert done == [(torch.float64, {}), "pinned", (GPU, {"non_blocking": True})]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_there_and_back_it_is_the_same() -> None:
    tensor = torch.randn(1000)
    there = to_device(tensor, GPU)
    assert there.is_cuda
    assert torch.equal(to_cpu(there), tensor)
