"""From logits to the next id: greedy, temperature, top-p, and the published repetition rule."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqaa.server.engine.call_mask import CallGrammars, CallMask
from aqaa.server.engine.call_shape import CallPlace
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


def random_share(seed: int, position: int) -> float:
    """The random number in [0, 1) that draws the id at `position` of an answer with `seed`.

    It depends on nothing else, so a cut answer goes on with the numbers of the uncut one.
    """
    return Random((seed << 32) + position).random()


class Sampler:
    """Draws the ids of one answer."""

    def __init__(
        self,
        params: SamplingParams,
        answer: Sequence[int] = (),
        grammars: CallGrammars | None = None,
    ) -> None:
        """`answer`: the ids of it that are in the prompt already. `grammars`: the decoder's."""
        self._params = params
        self._seed = secrets.randbits(64) if params.seed is None else params.seed
        self._position = len(answer)
        calls = params.calls
        self._call = None if calls is None else CallPlace(calls, answer)
        self._masks: list[PatternMask | CallMask] = []
        if params.pattern is not None:
            self._masks.append(PatternMask(params.pattern, answer))
        if calls is not None and grammars is not None:
            self._masks.append(CallMask(grammars, calls, answer))

    def span(self, vocabulary: int) -> slice:
        """The stretch of ids that holds all that may come next."""
        patterns = (mask for mask in self._masks if isinstance(mask, PatternMask))
        return next((mask.span(vocabulary) for mask in patterns), slice(0, vocabulary))

    @torch.inference_mode()
    def pick(self, logits: Tensor, ids: Sequence[int]) -> int:
        """The next id after `ids`, from float32 `logits` `[vocab]`, which may be changed.

        Each id that it returns counts as part of the answer: the pattern goes on from there.
        """
        for mask in self._masks:
            mask.apply(logits)
        picked = self._draw(logits, ids)
        self._position += 1
        for mask in self._masks:
            mask.push([picked])
        if self._call is not None:
            self._call.push(picked)
        return picked

    def _draw(self, logits: Tensor, ids: Sequence[int]) -> int:
        params = self._params
        in_call = self._call is not None and self._call.inside
        banned = repeated_id(ids) if params.repetition_aware and not in_call else None
        if banned is not None:
            logits[banned] = -torch.inf
        if params.temperature == 0:
            return int(logits.argmax())
        share = random_share(self._seed, self._position)
        return draw(logits.numpy(), params.temperature, params.top_p, share)


def draw(logits: NDArray[np.float32], temperature: float, top_p: float, share: float) -> int:
    """The id that the random number `share`, in [0, 1), draws.

    `logits` `[vocab]` is overwritten; `temperature` is above 0.
    """
    # On so few numbers a call of numpy costs a fraction of one of torch.
    shares = logits
    shares -= shares.max()
    shares /= temperature
    np.exp(shares, out=shares)
    enough = top_p * shares.sum()
    candidates = np.flatnonzero(shares > CANDIDATE_MIN_SHARE)
    if shares[candidates].sum() < enough:
        candidates = np.arange(len(shares))
    candidates = candidates[np.argsort(-shares[candidates], kind="stable")]
    sums = shares[candidates].cumsum()
    # The smallest set that reaches top_p ends with the id that reaches it.
    last = min(int(sums.searchsorted(enough)), len(sums) - 1)
    drawn = int(sums[: last + 1].searchsorted(share * float(sums[last])))
    return int(candidates[min(drawn, last)])
