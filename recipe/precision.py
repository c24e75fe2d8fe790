"""Where training computes in bfloat16: on a GPU, and on processors that have its products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # elsewhere it is emulated, and slower


def in_bfloat16(kind: str) -> bool:
    """Whether a device of this kind ("cpu", "cuda") is faster so."""
    return kind != "cpu" or BFLOAT16


@contextmanager
def mixed(kind: str = "cpu") -> Iterator[None]:
    """Layers and convolutions in bfloat16, where that is three to four times as fast.

    Attention is in plain products, since on a processor the backward pass of torch's fused one is
    slow in bfloat16 over few keys; `attend` is the other way out.

    Args:
        kind: of the device that computes, "cpu" or "cuda".
    """
    half = torch.autocast(kind, torch.bfloat16, enabled=in_bfloat16(kind))
    with half, sdpa_kernel(SDPBackend.MATH):
        yield


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Fused attention: in float32 on a processor, also within `mixed`; on a GPU as `q` is.

    There the backends that take a mask of floats, and are not compiled anew for every length.
    """
    if q.is_cuda:
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype))
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with torch.autocast("cpu", enabled=False), sdpa_kernel(fused):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
