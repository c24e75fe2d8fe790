"""The shape of an answer as a mask on logits, the same for every engine."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import torch
from torch import Tensor

from aqaa.models.groups import AUDIO_CODES, LINGUISTIC_CODES
from aqaa.server.engine.pattern import AnswerPattern, AnswerPlace, IdKind


class PatternMask:
    """Masks the logits of one answer so that it keeps its pattern."""

    def __init__(self, pattern: AnswerPattern, answer: Iterable[int] = ()) -> None:
        """`answer`: the ids of it that are there already."""
        self._pattern = pattern
        self._place = AnswerPlace(pattern)
        self.push(answer)

    def push(self, tokens: Iterable[int]) -> None:
        """Move on by the answer's next ids, `tokens`."""
        for token in tokens:
            self._place.push(token)

    def apply(self, logits: Tensor) -> None:
        """Put -inf on the ids that may not come next; `logits` float `[vocabulary]`, in place."""
        forbidden = _forbidden(self._pattern, self._place.allowed(), len(logits), logits.device)
        logits.masked_fill_(forbidden, -torch.inf)

    def span(self, vocabulary: int) -> slice:
        """The stretch of ids that holds all that may come next: no other logits are needed."""
        return _span(self._pattern, self._place.allowed(), vocabulary)


@functools.lru_cache(maxsize=64)
def _span(pattern: AnswerPattern, allowed: IdKind, vocabulary: int) -> slice:
    places = (~_forbidden(pattern, allowed, vocabulary, torch.device("cpu"))).nonzero()
    return slice(int(places[0]), int(places[-1]) + 1)


@functools.lru_cache(maxsize=64)
def _forbidden(
    pattern: AnswerPattern, allowed: IdKind, vocabulary: int, device: torch.device
) -> Tensor:
    """bool `[vocabulary]`, true where an id is forbidden; an answer needs about ten of them."""
    forbidden = torch.ones(vocabulary, dtype=torch.bool)
    if IdKind.TEXT in allowed:
        forbidden[: pattern.audio_offset] = False
        forbidden[[*pattern.never, *pattern.marks]] = True
    semantic = pattern.audio_offset + LINGUISTIC_CODES
    if IdKind.LINGUISTIC in allowed:
        forbidden[pattern.audio_offset : semantic] = False
    if IdKind.SEMANTIC in allowed:
        forbidden[semantic : pattern.audio_offset + AUDIO_CODES] = False
    for token, kind in pattern.marks.items():
        if kind in allowed:
            forbidden[token] = False
    return forbidden.to(device)
