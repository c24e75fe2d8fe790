"""Where training computes in bfloat16: on processors that have its products, and only in these."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # elsewhere it is emulated, and slower


@contextmanager
def mixed() -> Iterator[None]:
    """Layers and convolutions in bfloat16, where that is three to four times as fast.

    Attention is in plain products, since the backward pass of torch's fused one is slow in bfloat16
    over few keys; `attend` is the other way out.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16), sdpa_kernel(SDPBackend.MATH):
        yield


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Fused attention in float32, also within `mixed`."""
    fused = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    with torch.autocast("cpu", enabled=False), sdpa_kernel(fused):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), attn_mask=mask)
