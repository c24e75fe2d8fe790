"""How a streamed sound differs from the same sound made in one piece: at its joins and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from aqaa.vocoder.config import MelConfig
from aqaa.vocoder.mel import log_mel

Sound = NDArray[np.float32]

NEAR = 2  # mel frames on either side of a join that count as the join (23 ms)
TAIL_SECONDS = 0.04  # the end that users of this vocoder family find noisy
RARE = 99.9  # percentile of sample-to-sample jumps that no join may exceed


@dataclass(frozen=True)
class Seams:
    """One utterance's distances, pooled by `Report`."""

    at_joins: NDArray[np.float32]  # log-mel distance of every frame near a join
    elsewhere: NDArray[np.float32]
    tail: NDArray[np.float32]  # of the last 40 ms
    join_jumps: NDArray[np.float32]  # |x[n] - x[n-1]| where n begins a piece
    tail_jumps: NDArray[np.float32]
    rare_jump: float  # 99.9th percentile of the other jumps
    lengths: tuple[int, int]


def compare(pieces: Sequence[Sound], whole: Sound, mel: MelConfig) -> Seams:
    """Measure `pieces`, a stream's output in order, against `whole`."""
    pieces = [piece for piece in pieces if len(piece)]
    streamed = np.concatenate(pieces)
    joins = np.cumsum([len(piece) for piece in pieces])[:-1]
    shared = min(len(streamed), len(whole))
    ours, theirs = (
        log_mel(torch.from_numpy(sound[:shared]), mel).numpy() for sound in (streamed, whole)
    )
    distance = np.abs(ours - theirs).mean(axis=0)
    frames = np.arange(len(distance))
    near = np.zeros(len(distance), bool)
    for join in joins:
        near |= np.abs(frames + 0.5 - join / mel.hop_size) <= NEAR
    tail = frames >= len(distance) - round(TAIL_SECONDS * mel.sampling_rate / mel.hop_size)
    jumps = np.abs(np.diff(streamed))
    at_join = np.zeros(len(jumps), bool)
    at_join[joins - 1] = True
    tail_samples = round(TAIL_SECONDS * mel.sampling_rate)
    return Seams(
        distance[near],
        distance[~near & ~tail],
        distance[tail],
        jumps[at_join],
        jumps[-tail_samples:],
        float(np.percentile(jumps[~at_join], RARE)),
        (len(streamed), len(whole)),
    )


@dataclass(frozen=True)
class Report:
    """Many utterances' seams."""

    seams: Sequence[Seams]

    @property
    def join_ratio(self) -> float:
        """Mean log-mel distance at joins over that away from them."""
        return self._ratio("at_joins")

    @property
    def tail_ratio(self) -> float:
        """Mean log-mel distance in the last 40 ms over that away from joins."""
        return self._ratio("tail")

    @property
    def distance(self) -> float:
        """Mean log-mel distance away from joins, in nepers."""
        return float(np.concatenate([s.elsewhere for s in self.seams]).mean())

    @property
    def worst_jump(self) -> float:
        """The largest jump at a join, in units of its utterance's 99.9th percentile."""
        return max((float(s.join_jumps.max()) / s.rare_jump for s in self.seams if len(s.join_jumps)))

    @property
    def clicks(self) -> int:
        """Joins whose jump exceeds the 99.9th percentile of the jumps elsewhere."""
        return sum(int((s.join_jumps > s.rare_jump).sum()) for s in self.seams)

    @property
    def joins(self) -> int:
        """Joins in all."""
        return sum(len(s.join_jumps) for s in self.seams)

    def _ratio(self, part: str) -> float:
        distances = np.concatenate([getattr(s, part) for s in self.seams])
        return float(distances.mean()) / self.distance
