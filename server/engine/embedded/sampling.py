"""From logits to the next id: greedy, temperature, top-p, and the published repetition rule."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from torch import Tensor

from aqaa.server.engine.contract import REPETITION_WINDOW, SamplingParams
from aqaa.server.engine.pattern_mask import PatternMask

# Ids this likely, as a share of the likeliest's, nearly always hold all of top_p; sorting a whole
# vocabulary costs a step.
LIKELY = 1e-3


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
    """Draws the ids of one answer; owns its random numbers."""

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._random = Random(params.seed)
        self._mask = None if params.pattern is None else PatternMask(params.pattern)

    @torch.inference_mode()
    def pick(self, logits: Tensor, ids: Sequence[int]) -> int:
        """The next id after `ids`, from float32 `logits` `[vocab]`, which may be changed.

        Every id that it gives is taken as said: it follows the answer's pattern by them.
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
        # Numpy's calls cost a fraction of torch's on so few numbers.
        shares = logits.numpy()
        shares -= shares.max()
        shares /= params.temperature
        np.exp(shares, out=shares)
        enough = params.top_p * shares.sum()
        candidates = np.flatnonzero(shares > LIKELY)
        if shares[candidates].sum() < enough:
            candidates = np.arange(len(shares))
        candidates = candidates[np.argsort(-shares[candidates], kind="stable")]
        sums = shares[candidates].cumsum()
        # The smallest set that reaches top_p ends with the id that reaches it.
        last = min(int(sums.searchsorted(enough)), len(sums) - 1)
        drawn = int(sums[: last + 1].searchsorted(self._random.random() * float(sums[last])))
        return int(candidates[min(drawn, last)])
