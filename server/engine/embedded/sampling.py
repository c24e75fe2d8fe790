"""From logits to the next id: greedy, temperature, top-p, and the published repetition rule."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from torch import Tensor

from aqaa.server.engine.contract import REPETITION_WINDOW, SamplingParams
from aqaa.server.engine.pattern_mask import PatternMask

# Only ids above this share of the likeliest id's probability are sorted: they nearly always reach
# top_p, and sorting the whole vocabulary takes as long as a decoding step.
CANDIDATE_MIN_SHARE = 1e-3


def repeated_id(ids: Sequence[int]) -> int | None:
    """The id that may not come next under the repetition rule (SPEC 5), if there is one.

    It is the last of `ids` (prompt and output) if it stands at least twice among the last
    `REPETITION_WINDOW`; with fewer ids than that the rule does not apply.
    """
    window = ids[-REPETITION_WINDOW:]
    if len(window) < REPETITION_WINDOW or list(window).count(window[-1]) < 2:
        return None
    return window[-1]


class Sampler:
    """Draws the ids of one answer, with a random generator of its own."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._random = Random(params.seed)
        self._mask = None if params.pattern is None else PatternMask(params.pattern)

    @torch.inference_mode()
    def pick(self, logits: Tensor, ids: Sequence[int]) -> int:
        """The next id after `ids`, from float32 `logits` `[vocab]`, which may be changed.

        Each id that it returns counts as part of the answer: the pattern goes on from there.
        """
        if self._mask is None:
            return self._draw(logits, ids)
        self._mask.apply(logits)
        picked = self._draw(logits, ids)
        self._mask.push([picked])
        return picked

    def _draw(self, logits: Tensor, ids: Sequence[int]) -> int:
        params = self._params
        banned = repeated_id(ids) if params.repetition_aware else None
        if banned is not None:
            logits[banned] = -torch.inf
        if params.temperature == 0:
            return int(logits.argmax())
        # On so few numbers a call of numpy costs a fraction of one of torch.
        shares = logits.numpy()
        shares -= shares.max()
        shares /= params.temperature
        np.exp(shares, out=shares)
        enough = params.top_p * shares.sum()
        candidates = np.flatnonzero(shares > CANDIDATE_MIN_SHARE)
        if shares[candidates].sum() < enough:
            candidates = np.arange(len(shares))
        candidates = candidates[np.argsort(-shares[candidates], kind="stable")]
        sums = shares[candidates].cumsum()
        # The smallest set that reaches top_p ends with the id that reaches it.
        last = min(int(sums.searchsorted(enough)), len(sums) - 1)
        drawn = int(sums[: last + 1].searchsorted(self._random.random() * float(sums[last])))
        return int(candidates[min(drawn, last)])
