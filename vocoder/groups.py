"""Groups of audio tokens: what is allowed in them, and how much sound they stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import (
    AUDIO_CODES,
    GROUP_TOKENS,
    LINGUISTIC_CODES,
    LINGUISTIC_PER_GROUP,
)
from aqaa.models.errors import TokenError

_FIRST = np.array([0, 0, LINGUISTIC_CODES, LINGUISTIC_CODES, LINGUISTIC_CODES])
_END = np.array([LINGUISTIC_CODES] * 2 + [AUDIO_CODES] * 3)


def check_groups(tokens: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """`tokens` as int64 [N], if they are whole groups of 2 linguistic and 3 semantic tokens.

    Raises:
        TokenError: an incomplete group, or a token that its place in the group does not allow; the
            message names the first such place.
    """
    ids = np.asarray(tokens, np.int64).reshape(-1)
    if len(ids) % GROUP_TOKENS:
        raise TokenError(
            f"{len(ids)} audio tokens are not whole groups of {GROUP_TOKENS}: "
            "keep the rest until its group is complete"
        )
    groups = ids.reshape(-1, GROUP_TOKENS)
    wrong = np.flatnonzero(((groups < _FIRST) | (groups >= _END)).reshape(-1))
    if not len(wrong):
        return ids
    at = int(wrong[0])
    place, token = at % GROUP_TOKENS, int(ids[at])
    kind = "linguistic" if place < LINGUISTIC_PER_GROUP else "semantic"
    why = (
        "groups are out of phase"
        if 0 <= token < AUDIO_CODES
        else "no codebook has it; subtract the decoder's audio offset"
    )
    raise TokenError(
        f"audio token {token} at index {at} should be a {kind} one "
        f"({_FIRST[place]} to {_END[place] - 1}): {why}"
    )
