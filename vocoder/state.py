"""A stream of speech as a value: what is known between two chunks, and which chunk is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from aqaa.models.bundle import VocoderConfig
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS, check_groups
from aqaa.vocoder.noise import Noise


@dataclass(frozen=True)
class Grid:
    """Where groups lie among frames and samples. Group 0 begins at frame 0 and sample 0."""

    rate: int  # Hz
    hop: int  # samples a frame
    speed: float

    @property
    def group_frames(self) -> float:
        """Frames that a group stands for: 10.3359375 at 22 050 Hz, hop 256 and speed 1."""
        return GROUP_SECONDS * self.rate / self.hop / self.speed

    @property
    def frame_tokens(self) -> float:
        """Tokens that a frame stands for."""
        return GROUP_TOKENS / self.group_frames

    def frames(self, groups: int) -> int:
        """Whole frames in `groups` groups."""
        return int(groups * self.group_frames)

    def samples(self, groups: int) -> int:
        """Samples that `groups` groups stand for: 2,646 each at speed 1."""
        return round(groups * self.group_frames * self.hop)

    def group_of(self, frame: int) -> int:
        """The group that `frame` begins in; 0 for frames before the first."""
        return max(0, int(frame / self.group_frames))


@dataclass(frozen=True, eq=False)
class Prompt:
    """What every window of a voice begins with: computed once, shared by all its streams."""

    tokens: Tensor  # int64 [N]
    positions: Tensor  # float64 [P]: where the prompt's frames lie among its tokens
    mel: Tensor  # [M, P]
    speaker: Tensor  # [M]

    @property
    def frames(self) -> int:
        """Mel frames of the prompt, P."""
        return self.mel.shape[1]


@dataclass(frozen=True, eq=False)
class StreamState:
    """A stream between two chunks. Its size does not grow with what has been said.

    Its tensors are on the networks' device, except `sound` and the noise.
    """

    prompt: Prompt
    prompt_noise: Tensor  # [M, P]: where the path of the prompt's frames begins, in every chunk
    noise: Noise
    grid: Grid
    tokens: NDArray[np.int64]  # of the groups from `first_group` on: context, then unspoken ones
    first_group: int
    next_group: int  # the first group that no chunk has held yet
    chunk: int  # entries of the schedule that are used up
    frames: int  # frames spoken
    mel: Tensor  # [M, R] of the last spoken frames
    ahead: Tensor  # [M, <= lookahead] of the frames held back, as they were computed so far
    source: Tensor  # [R * hop] of the last spoken frames
    phase: Tensor  # of the source's fundamental after them, in cycles, float64 []
    # [<= SOUND_FADE_SAMPLES] the first samples of the frames held back; in the CPU's memory
    sound: Tensor

    @property
    def groups(self) -> int:
        """Groups given so far."""
        return self.first_group + len(self.tokens) // GROUP_TOKENS


@dataclass(frozen=True, eq=False)
class Chunk:
    """The next piece of a stream's work: groups `context` to `end`, of which some are new.

    The flow computes frames [first, last) of the stream, the prompt's before them. How many they
    are depends on the number of groups alone.
    """

    state: StreamState
    context: int
    end: int
    number: int  # entries of the schedule that are used up with it
    last_of_answer: bool
    first: int
    last: int

    @property
    def frames(self) -> int:
        """Frames that the flow computes, the prompt's included."""
        return self.state.prompt.frames + self.last - self.first

    @property
    def tokens(self) -> NDArray[np.int64]:
        """The chunk's and its context's audio tokens."""
        first = self.state.first_group
        return self.state.tokens[
            (self.context - first) * GROUP_TOKENS : (self.end - first) * GROUP_TOKENS
        ]


def feed(state: StreamState, tokens: Sequence[int]) -> StreamState:
    """`state` with more groups waiting.

    Raises:
        TokenError: see `check_groups`.
    """
    return replace(state, tokens=np.concatenate([state.tokens, check_groups(tokens)]))


def due(state: StreamState, config: VocoderConfig, *, final: bool = False) -> Chunk | None:
    """The chunk that `state` has the groups for; with `final`, all that is left, as the last one.

    None when more groups must come first, or, with `final`, when none ever came. A chunk that
    would give too few frames, or none, for all are held back, is never due: it is one with the
    next.
    """
    grid = state.grid
    context = first_needed(state.frames, grid, config)
    if final:
        if not state.groups:
            return None
        # It goes on beyond the answer's end, so that the answer's last frame is no edge either.
        last = ceil(grid.samples(state.groups) / grid.hop) + config.lookahead_frames
        return Chunk(state, context, state.groups, state.chunk, True, grid.frames(context), last)
    end, number = next_end(config, grid, state.frames, state.next_group, state.chunk)
    if end > state.groups:
        return None
    last = grid.frames(end)
    return Chunk(state, context, end, number, False, last - grid.frames(end - context), last)


def fresh(chunk: Chunk, config: VocoderConfig) -> int:
    """Frames of the chunk that are to be spoken now, not held back."""
    return max(0, chunk.last - config.lookahead_frames - chunk.state.frames)


def advance(chunk: Chunk, config: VocoderConfig) -> StreamState:
    """The chunk's stream after it, but for what the networks make: its fresh frames are spoken."""
    state = chunk.state
    frames = state.frames + fresh(chunk, config)
    keep = first_needed(frames, state.grid, config)
    return replace(
        state,
        tokens=state.tokens[(keep - state.first_group) * GROUP_TOKENS :].copy(),
        first_group=keep,
        next_group=chunk.end,
        chunk=chunk.number,
        frames=frames,
    )


def next_end(
    config: VocoderConfig, grid: Grid, spoken: int = 0, end: int = 0, number: int = 0
) -> tuple[int, int]:
    """The group that the next chunk ends before, and the entries of the schedule used up with it.

    By default of an answer's first chunk. One that would give too few frames is one with the next.

    Args:
        config: the schedule.
        grid: of the stream.
        spoken: frames.
        end: groups that chunks have held.
        number: entries of the schedule that are used up.
    """
    sizes = config.chunk_groups
    while grid.frames(end) - config.lookahead_frames < spoken + config.min_frames:
        end += sizes[min(number, len(sizes) - 1)]
        number += 1
    return end, number


def first_needed(spoken: int, grid: Grid, config: VocoderConfig) -> int:
    """The first group that a chunk after `spoken` frames is computed together with."""
    return max(0, grid.group_of(spoken - 1) - config.context_groups)
