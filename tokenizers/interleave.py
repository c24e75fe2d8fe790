"""Linguistic and semantic codes to the decoder's ids, interleaved 2 : 3, and back.

A group is two linguistic and three semantic tokens, 120 ms of sound. Numbering (Step-Audio): raw
linguistic code a is audio token a, raw semantic code b is audio token 1024 + b, and the decoder's
id is `audio_offset` + audio token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aqaa.models.errors import TokenError
from aqaa.models.groups import (
    GROUP_TOKENS,
    LINGUISTIC_CODES,
    LINGUISTIC_PER_GROUP,
    SEMANTIC_CODES,
    SEMANTIC_PER_GROUP,
    check_groups,
)


def interleave(linguistic: Sequence[int], semantic: Sequence[int], offset: int) -> list[int]:
    """Decoder ids of whole groups; what is left over in either stream is dropped.

    Raises:
        TokenError: a code is outside its codebook.
    """
    return Interleaver(offset).push(linguistic, semantic)


def deinterleave(ids: Sequence[int], offset: int) -> tuple[list[int], list[int]]:
    """Raw linguistic and semantic codes of decoder `ids` in whole groups.

    Raises:
        TokenError: not whole groups, or an id that cannot stand where it does.
    """
    groups = check_groups(np.asarray(ids, np.int64) - offset).reshape(-1, GROUP_TOKENS)
    linguistic = groups[:, :LINGUISTIC_PER_GROUP]
    semantic = groups[:, LINGUISTIC_PER_GROUP:] - LINGUISTIC_CODES
    return linguistic.reshape(-1).tolist(), semantic.reshape(-1).tolist()


class Interleaver:
    """Interleaves two streams of codes that do not arrive together.

    Its state is the codes whose group is not whole yet.
    """

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._linguistic: list[int] = []
        self._semantic: list[int] = []

    def push(self, linguistic: Iterable[int], semantic: Iterable[int]) -> list[int]:
        """Add raw codes; the decoder ids of the groups that are now whole.

        Raises:
            TokenError: a code is outside its codebook; nothing was added.
        """
        new_linguistic = [int(code) for code in linguistic]
        new_semantic = [int(code) for code in semantic]
        for place, code in enumerate(new_linguistic):
            _check(code, LINGUISTIC_CODES, "linguistic", place)
        for place, code in enumerate(new_semantic):
            _check(code, SEMANTIC_CODES, "semantic", place)
        self._linguistic += new_linguistic
        self._semantic += new_semantic
        groups = min(
            len(self._linguistic) // LINGUISTIC_PER_GROUP, len(self._semantic) // SEMANTIC_PER_GROUP
        )
        ids: list[int] = []
        for group in range(groups):
            start = group * LINGUISTIC_PER_GROUP
            first = self._linguistic[start : start + LINGUISTIC_PER_GROUP]
            ids += [self._offset + code for code in first]
            start = group * SEMANTIC_PER_GROUP
            second = self._semantic[start : start + SEMANTIC_PER_GROUP]
            ids += [self._offset + LINGUISTIC_CODES + code for code in second]
        del self._linguistic[: groups * LINGUISTIC_PER_GROUP]
        del self._semantic[: groups * SEMANTIC_PER_GROUP]
        return ids

    def copy(self) -> Interleaver:
        """An independent interleaver in the same state."""
        other = Interleaver(self._offset)
        other._linguistic = self._linguistic.copy()
        other._semantic = self._semantic.copy()
        return other


def _check(code: int, codes: int, kind: str, place: int) -> None:
    if not 0 <= code < codes:
        raise TokenError(f"{code} at place {place} is not a {kind} code in [0, {codes})")
