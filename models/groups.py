"""The group rule: two linguistic tokens, then three semantic ones, stand for 120 ms of sound.

Audio tokens are numbered as Step-Audio numbers them (arXiv 2502.11946): linguistic code a is audio
token a, semantic code b is audio token 1024 + b. The decoder's id is `audio_offset` + audio token.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import TokenError

LINGUISTIC_CODES = 1024  # rows of linguistic_tokenizer.npy (Step-Audio, arXiv 2502.11946)
SEMANTIC_CODES = 4096  # codebook of CosyVoice-1.0 speech_tokenizer_v1 (arXiv 2407.05407)
AUDIO_CODES = LINGUISTIC_CODES + SEMANTIC_CODES
LINGUISTIC_PER_GROUP = 2
SEMANTIC_PER_GROUP = 3
GROUP_TOKENS = LINGUISTIC_PER_GROUP + SEMANTIC_PER_GROUP
GROUP_SECONDS = 0.12  # 2 linguistic at 16.7 Hz = 3 semantic at 25 Hz

_FIRST = np.repeat([0, LINGUISTIC_CODES], [LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP])
_END = np.repeat([LINGUISTIC_CODES, AUDIO_CODES], [LINGUISTIC_PER_GROUP, SEMANTIC_PER_GROUP])


def is_linguistic(token: int) -> bool:
    """Whether an audio token in [0, 5120) is a linguistic one; else it is semantic."""
    return token < LINGUISTIC_CODES


def takes_linguistic(place: int) -> bool:
    """Whether a linguistic token stands at `place`, counted from any group's beginning."""
    return place % GROUP_TOKENS < LINGUISTIC_PER_GROUP


def may_stand(token: int, place: int) -> bool:
    """Whether an audio token in [0, 5120) may stand at `place`."""
    return is_linguistic(token) == takes_linguistic(place)


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
    kind = "linguistic" if takes_linguistic(place) else "semantic"
    why = (
        "groups are out of phase"
        if 0 <= token < AUDIO_CODES
        else "no codebook has it; subtract the decoder's audio offset"
    )
    raise TokenError(
        f"audio token {token} at index {at} should be a {kind} one "
        f"({_FIRST[place]} to {_END[place] - 1}): {why}"
    )
