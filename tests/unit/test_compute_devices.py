"""Where hearing and speaking compute follows the setting and what there is; the reason is told."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from aqaa.models.errors import ConfigError
from aqaa.server.compute.devices import GIB, Gpu, flow_dtype, place
from aqaa.server.compute.settings import ComputeSettings

SMALL = Gpu(0, "a small card", 2 * GIB)
BUSY = Gpu(1, "a busy card", 8 * GIB)
FREE = Gpu(2, "a free card", 70 * GIB)


@pytest.mark.parametrize(
    ("wanted", "gpus", "device", "reason"),
    [
        ("auto", [], "cpu", "no CUDA device"),
        ("auto", [SMALL], "cpu", "a small card has 2.0 GiB free, less than"),
        ("auto", [SMALL, BUSY, FREE], "cuda:2", "a free card has 70.0 GiB free"),
        ("cpu", [FREE], "cpu", "as set"),
        ("cuda", [SMALL], "cuda:0", "as set"),
        ("cuda:1", [SMALL, BUSY], "cuda:1", "as set"),
    ],
)
def test_a_device_is_chosen_and_the_reason_told(
    wanted: str, gpus: list[Gpu], device: str, reason: str
) -> None:
    placement = place(wanted, gpus)
    assert placement.device == device
    assert reason in placement.reason


@pytest.mark.parametrize(
    ("wanted", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda:1", torch.float16),
        ("float32", "cuda:1", torch.float32),
        ("float16", "cpu", torch.float16),
    ],
)
def test_the_flow_computes_in_half_precision_where_that_is_faster(
    wanted: str, device: str, dtype: torch.dtype
) -> None:
    assert flow_dtype(wanted, device) == dtype


@pytest.mark.parametrize(
    ("wanted", "gpus", "seen"),
    [("cuda", [], "no CUDA device"), ("cuda:3", [BUSY], r"cuda:1 \(a busy card\)")],
)
def test_a_gpu_that_is_not_there_is_refused_with_what_is(
    wanted: str, gpus: list[Gpu], seen: str
) -> None:
    with pytest.raises(ConfigError, match=f"{wanted} was asked for, but torch sees {seen}"):
        place(wanted, gpus)


def test_a_device_by_another_name_is_no_setting() -> None:
    with pytest.raises(ValidationError, match="hearing_device"):
        ComputeSettings(hearing_device="gpu")
