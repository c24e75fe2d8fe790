"""Sequences of several lengths in one batch: padded at their end, and masked wherever it matters.

A network gives a padded row what it gives the row alone if padding is zero at the input of every
convolution, is no key of any attention, and is left out of every mean over time. Where all rows
have one length there is no mask (`None`) and nothing to pay for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aqaa.models.copies import to_device

Mask = Tensor | None  # [B, 1, T], 1.0 where a row has data, 0.0 where it is padded


def mask_of(lengths: Sequence[int], like: Tensor, size: int | None = None) -> Mask:
    """The mask of rows of `lengths`, in the dtype and on the device of `like`.

    Args:
        lengths: data of each row.
        like: what the mask will be multiplied with.
        size: of a padded row, whose batch then has a mask in any case. If not given, it is that of
            the longest row, and rows of one length have none.
    """
    longest = max(lengths)
    if size is None and min(lengths) == longest:
        return None
    place = torch.arange(longest if size is None else size)
    rows = place < torch.tensor(lengths)[:, None]
    return to_device(rows[:, None], like.device, like.dtype)


def masked(x: Tensor, mask: Mask) -> Tensor:
    """x [B, C, T] with zeros where it is padded."""
    return x if mask is None else x * mask


def keys_of(mask: Mask) -> Tensor | None:
    """The attention mask bool [B, 1, 1, T]: which keys are seen."""
    return None if mask is None else mask[:, None] > 0


def halved(mask: Mask) -> Mask:
    """The mask after a convolution of stride 2: a row of T has ceil(T / 2)."""
    return None if mask is None else mask[:, :, ::2]


def group_norm(norm: nn.GroupNorm, x: Tensor, mask: Mask) -> Tensor:
    """`norm` of x [B, C, T], its means taken over what is not padded."""
    if mask is None:
        out: Tensor = norm(x)
        return out
    batch, channels, size = x.shape
    grouped = x.reshape(batch, norm.num_groups, channels // norm.num_groups, size)
    grouped = grouped.to(torch.promote_types(x.dtype, torch.float32))  # means of half are coarse
    there = mask[:, None].to(grouped)
    count = there.sum((2, 3), keepdim=True) * grouped.shape[2]
    apart = (grouped - (grouped * there).sum((2, 3), keepdim=True) / count) * there
    spread = apart.square().sum((2, 3), keepdim=True) / count
    unit = (apart * torch.rsqrt(spread + norm.eps)).reshape(batch, channels, size).to(x)
    scaled: Tensor = unit * norm.weight[:, None] + norm.bias[:, None]
    return scaled


def stack_padded(rows: Sequence[Tensor], size: int | None = None, *, left: bool = False) -> Tensor:
    """[B, ..., size] of `rows` [..., T], zeros at their end or, with `left`, at their beginning."""
    size = max(row.shape[-1] for row in rows) if size is None else size
    if all(row.shape[-1] == size for row in rows):
        return torch.stack(list(rows))
    out = rows[0].new_zeros(len(rows), *rows[0].shape[:-1], size)
    for place, row in zip(out, rows, strict=True):
        if left:
            place[..., size - row.shape[-1] :] = row
        else:
            place[..., : row.shape[-1]] = row
    return out
