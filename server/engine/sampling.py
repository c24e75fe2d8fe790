"""From logits to the next id: greedy, temperature, top-p, and the published repetition rule."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from aqaa.server.engine.base import REPETITION_WINDOW, SamplingParams

HEAD = 64  # ids that nearly always hold all of top_p; sorting a whole vocabulary costs a step


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

    @torch.inference_mode()
    def pick(self, logits: Tensor, ids: Sequence[int]) -> int:
        """The next id after `ids`, from float32 `logits` `[vocab]`, which may be changed."""
        params = self._params
        banned = repeated_id(ids) if params.repetition_aware else None
        if banned is not None:
            logits[banned] = -torch.inf
        if params.temperature == 0:
            return int(logits.argmax())
        probabilities = (logits / params.temperature).softmax(-1)
        values, candidates = probabilities.topk(min(HEAD, len(probabilities)))
        sums = values.cumsum(0).numpy()  # numpy's calls on so few cost a fraction of torch's
        if sums[-1] < params.top_p:
            values, candidates = probabilities.sort(descending=True)
            sums = values.cumsum(0).numpy()
        # The smallest set that reaches top_p ends with the id that reaches it.
        last = min(int(sums.searchsorted(params.top_p)), len(sums) - 1)
        drawn = int(sums[: last + 1].searchsorted(self._random.random() * float(sums[last])))
        return int(candidates[min(drawn, last)])
