"""Noise that is determined by the frame it belongs to, not by when it is drawn.

The flow starts from noise, and HiFT's source contains noise. A frame may be computed twice: first
as look-ahead, then to be spoken. Both times it must start from the same noise.
"""

from __future__ import annotations

import functools
import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MEL, _SOURCE, _OFFSETS = range(3)
_BLOCK_ZERO = 2**40  # Philox counter of frame 0's block: blocks of the prompt come before it
_BLOCK_FRAMES = 16  # drawn by one generator, whose set-up costs as much as 8 frames of mel noise
# Answers that have one seed share their noise, frame by frame: the blocks of some 12 s of the
# published source (147 kB each) and of as much mel are drawn once for all.
_BLOCKS_KEPT = 128


class Noise(Protocol):
    """Where a stream's randomness comes from. Frame 0 is the first that is spoken."""

    def mel(self, first: int, last: int, mels: int) -> Tensor:
        """N(0, 1) for frames first ... last-1, float32 [mels, last-first]."""
        ...

    def source(self, first: int, last: int, harmonics: int, samples: int) -> Tensor:
        """N(0, 1), `samples` a frame, float32 [harmonics, (last-first)*samples]."""
        ...

    def offsets(self, harmonics: int) -> Tensor:
        """Initial phases in [-pi, pi), the fundamental's 0, float32 [harmonics]."""
        ...


class KeyedNoise:
    """Counter-based noise (Philox): a seed and a frame determine it, in any order of asking."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def mel(self, first: int, last: int, mels: int) -> Tensor:
        """See `Noise.mel`."""
        return torch.from_numpy(self._frames(_MEL, first, last, (mels,)).T.copy())

    def source(self, first: int, last: int, harmonics: int, samples: int) -> Tensor:
        """See `Noise.source`."""
        frames = self._frames(_SOURCE, first, last, (harmonics, samples))
        return torch.from_numpy(frames.swapaxes(0, 1).reshape(harmonics, -1))

    def offsets(self, harmonics: int) -> Tensor:
        """See `Noise.offsets`."""
        phases = _generator(self.seed, _OFFSETS, 0).uniform(-math.pi, math.pi, harmonics)
        phases[0] = 0.0
        return torch.from_numpy(phases.astype(np.float32))

    def _frames(
        self, kind: int, first: int, last: int, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """[last-first, *shape], cut from the blocks that cover it."""
        begin, end = first // _BLOCK_FRAMES, -(-last // _BLOCK_FRAMES)
        blocks = [
            _block(self.seed, kind, block, shape) for block in range(begin, max(end, begin + 1))
        ]
        return np.concatenate(blocks)[first - begin * _BLOCK_FRAMES : last - begin * _BLOCK_FRAMES]


def _generator(seed: int, kind: int, block: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(key=seed, counter=[0, 0, kind, _BLOCK_ZERO + block])
    )


@functools.lru_cache(_BLOCKS_KEPT)
def _block(seed: int, kind: int, block: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Of one kind, [16, *shape]; not to be written to."""
    return _generator(seed, kind, block).standard_normal((_BLOCK_FRAMES, *shape), np.float32)
