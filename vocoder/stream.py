"""Speaking an answer chunk by chunk, without a seam.

A chunk of groups is run through the flow in a window

    [ voice's prompt | groups already spoken | the chunk ]

in which every frame has the noise of its own place in the stream (`Noise`), so that a frame
computed in two windows comes out nearly the same. The chunk's last `lookahead_frames`, which have
not seen what follows, are held back: the next window computes them again, and the mel passes
gradually from the one to the other. HiFT then runs over these frames and as many before them as it
can see, on the very mel and source that it had there before; the source's phase is carried on. The
sound that the previous run had already made of the first held-back frames fades into the new one.

    frames    context: mel, source kept | held back ...  new ... | held back
                                        A = spoken before        B = spoken after
    sound                               | fade |                 |

Frame f covers samples [256 f, 256 f + 256) of the answer, group g ends at sample
2646 (g + 1) / speed. Only an answer's end is cut inside a frame: no sample is lost or added.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import ceil, log
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aqaa.models.bundle import VocoderConfig
from aqaa.models.groups import GROUP_TOKENS
from aqaa.vocoder.flow import Flow, token_positions
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.mel import MEL_FLOOR
from aqaa.vocoder.noise import Noise
from aqaa.vocoder.state import Chunk, Grid, Prompt, StreamState, first_needed
from aqaa.vocoder.voices import Voice

SOUND_FADE = 256  # samples in which a chunk's sound takes over from what its predecessor foresaw
EDGE_FADE = 64  # samples (3 ms) in which an answer begins and ends, so that neither edge clicks

Sound = NDArray[np.float32]
Job = TypeVar("Job")
Result = TypeVar("Result")


class ChunkSynthesiser:
    """The networks and the schedule that all streams share. Its methods change nothing."""

    def __init__(self, flow: Flow, hift: Hift, config: VocoderConfig) -> None:
        self.flow = flow
        self.hift = hift
        self.config = config
        self.hop = hift.config.samples_per_frame
        self.harmonics = hift.config.nb_harmonics + 1
        self.context = hift.config.receptive_frames
        self.device = hift.window.device

    @torch.inference_mode()
    def prompt(self, voice: Voice) -> Prompt:
        """The part of every window that `voice` determines."""
        count, frames = len(voice.tokens), len(voice.mel)
        return Prompt(
            voice.tokens.to(self.device),
            token_positions(0, frames, count, count / frames),
            voice.mel.T.contiguous().to(self.device),
            self.flow.speaker(voice.embedding[None].to(self.device))[0],
        )

    @torch.inference_mode()
    def start(self, prompt: Prompt, noise: Noise, speed: float) -> StreamState:
        """A stream before its first token, as if silence had just been spoken."""
        mels = prompt.mel.shape[0]
        phase = torch.zeros(1, dtype=torch.float64, device=self.device)
        f0 = torch.zeros(1, self.context, device=self.device)
        source, _ = self._source(noise, -self.context, f0, phase)
        return StreamState(
            prompt=prompt,
            noise=noise,
            grid=Grid(self.hift.config.sampling_rate, self.hop, speed),
            tokens=np.zeros(0, np.int64),
            first_group=0,
            next_group=0,
            chunk=0,
            frames=0,
            mel=torch.full((mels, self.context), log(MEL_FLOOR), device=self.device),
            ahead=torch.zeros(mels, 0, device=self.device),
            source=source,
            phase=phase,
            sound=torch.zeros(0, device=self.device),
        )

    @torch.inference_mode()
    def synthesise(self, chunks: Sequence[Chunk]) -> list[tuple[StreamState, Sound]]:
        """Each chunk's sound, float32 in [-1, 1], and its stream after it.

        Chunks of one shape, which sessions at the same point of the schedule have, are batched.
        """
        windows = [_window(chunk, self.config) for chunk in chunks]
        mels = _batched(self._mels, windows, lambda window: window.shape)
        pieces = [self._piece(window, mel) for window, mel in zip(windows, mels, strict=True)]
        sounds = _batched(self._sounds, pieces, lambda piece: piece.mel.shape[1])
        return [self._finish(piece, sound) for piece, sound in zip(pieces, sounds, strict=True)]

    def shape_of(self, chunk: Chunk) -> Hashable:
        """Key for batching: chunks of equal shape can share one forward pass."""
        return _window(chunk, self.config).shape

    def _mels(self, windows: Sequence[_Window]) -> Sequence[Tensor]:
        """The flow's mel [M, F] of each window's frames; all windows have one shape."""
        prompts = [window.chunk.state.prompt for window in windows]
        known = prompts[0].mel.shape[1]
        mu = self.flow.estimate(
            torch.stack([window.tokens.to(self.device) for window in windows]),
            torch.stack([window.positions for window in windows]),
        )
        noise = torch.stack([window.noise(mu.shape[1]) for window in windows]).to(self.device)
        cond = torch.zeros_like(mu)
        cond[:, :, :known] = torch.stack([prompt.mel for prompt in prompts])
        speaker = torch.stack([prompt.speaker for prompt in prompts])
        noise = noise * self.config.temperature
        return list(self.flow.sample(mu, noise, speaker, cond, self.config.steps)[:, :, known:])

    def _piece(self, window: _Window, mel: Tensor) -> _Piece:
        """What HiFT is to run on: the kept context, then the frames from the first unspoken one."""
        state = window.chunk.state
        new = mel[:, state.frames - window.first :].clone()
        overlap = min(state.ahead.shape[1], new.shape[1])
        if overlap:
            gain = _rise(overlap, mel.device)
            new[:, :overlap] = torch.lerp(state.ahead[:, :overlap], new[:, :overlap], gain)
        spoken = window.last - self.config.lookahead_frames
        whole = torch.cat([state.mel, new], dim=1)
        f0 = self.hift.f0(whole[None])[:, self.context :]
        fresh = max(0, spoken - state.frames)
        source, phase = self._source(state.noise, state.frames, f0[:, :fresh], state.phase)
        ahead, _ = self._source(state.noise, state.frames + fresh, f0[:, fresh:], phase)
        return _Piece(window.chunk, fresh, whole, torch.cat([state.source, source, ahead]), phase)

    def _source(self, noise: Noise, first: int, f0: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Source [F * hop] of frames `first` on, and its phase [1] afterwards; f0 is [1, F]."""
        if not f0.shape[1]:
            return f0[0], phase
        last = first + f0.shape[1]
        source, phase = self.hift.source(
            f0,
            phase,
            noise.offsets(self.harmonics)[None].to(self.device),
            noise.source(first, last, self.harmonics, self.hop)[None].to(self.device),
        )
        return source[0, 0], phase

    def _sounds(self, pieces: Sequence[_Piece]) -> Sequence[Tensor]:
        """HiFT's sound of each piece from its first unspoken frame on; all have one length."""
        mel = torch.stack([piece.mel for piece in pieces])
        source = torch.stack([piece.source for piece in pieces])[:, None]
        return list(self.hift.decode(mel, source)[:, self.context * self.hop :])

    def _finish(self, piece: _Piece, sound: Tensor) -> tuple[StreamState, Sound]:
        """Join the sound to what was foreseen of it, cut it, and keep what the next chunk needs."""
        chunk, state, grid = piece.chunk, piece.chunk.state, piece.chunk.state.grid
        sound = sound.clone()
        overlap = len(state.sound)
        if overlap:
            gain = _rise(overlap, sound.device)
            sound[:overlap] = torch.lerp(state.sound, sound[:overlap], gain)
        if not state.frames:
            edge = min(EDGE_FADE, len(sound))
            sound[:edge] *= _rise(edge, sound.device)
        spoken = piece.fresh * self.hop
        if chunk.last:
            spoken = grid.samples(chunk.end) - state.frames * self.hop
            edge = min(EDGE_FADE, spoken)
            sound[spoken - edge : spoken] *= _rise(edge, sound.device).flip(0)
        frames = state.frames + piece.fresh
        end = self.context + piece.fresh
        keep = first_needed(frames, grid, self.config)
        after = replace(
            state,
            tokens=state.tokens[(keep - state.first_group) * GROUP_TOKENS :].copy(),
            first_group=keep,
            next_group=chunk.end,
            chunk=state.chunk + 1,
            frames=frames,
            mel=piece.mel[:, end - self.context : end].clone(),
            ahead=piece.mel[:, end:].clone(),
            source=piece.source[piece.fresh * self.hop : end * self.hop].clone(),
            phase=piece.phase,
            sound=sound[spoken : spoken + SOUND_FADE].clone(),
        )
        return after, sound[:spoken].cpu().numpy()


@dataclass(frozen=True, eq=False)
class _Window:
    """Frames [first, last) of a chunk with its context, as the flow sees them after the prompt."""

    chunk: Chunk
    first: int
    last: int
    tokens: Tensor  # int64 [N], the prompt's first
    positions: Tensor  # float64 [F], the prompt's first

    @property
    def shape(self) -> Hashable:
        return len(self.tokens), len(self.positions), self.chunk.state.prompt.mel.shape[1]

    def noise(self, mels: int) -> Tensor:
        """N(0, 1) of the prompt's and the window's frames, [M, F]."""
        state = self.chunk.state
        prompt = state.prompt.mel.shape[1]
        before = state.noise.mel(-prompt, 0, mels)
        return torch.cat([before, state.noise.mel(self.first, self.last, mels)], dim=1)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Frames that HiFT runs on: `context` spoken ones, `fresh` to be spoken, some to hold back."""

    chunk: Chunk
    fresh: int
    mel: Tensor  # [M, F]
    source: Tensor  # [F * hop]
    phase: Tensor  # after the fresh frames, [1]


def _window(chunk: Chunk, config: VocoderConfig) -> _Window:
    """The number of frames depends on the number of groups alone, so that equal chunks batch.

    The last window goes on beyond the answer's end, so that its last frame is no edge either.
    """
    state, grid = chunk.state, chunk.state.grid
    groups = chunk.end - chunk.context
    if chunk.last:
        last = ceil(grid.samples(chunk.end) / grid.hop) + config.lookahead_frames
        count = last - grid.frames(chunk.context)
    else:
        last, count = grid.frames(chunk.end), grid.frames(groups)
    first = last - count
    prompt = state.prompt
    tokens = torch.from_numpy(chunk.tokens)
    positions = token_positions(
        first, count, len(tokens), grid.frame_tokens, chunk.context * GROUP_TOKENS
    )
    return _Window(
        chunk,
        first,
        last,
        torch.cat([prompt.tokens, tokens.to(prompt.tokens.device)]),
        torch.cat([prompt.positions, len(prompt.tokens) + positions]),
    )


def _rise(length: int, device: torch.device) -> Tensor:
    """A gain that goes smoothly from 0 to 1, both left out, [length]."""
    steps = torch.arange(1, length + 1, device=device) / (length + 1)
    return torch.sin(steps * (torch.pi / 2)).square()


def _batched(
    run: Callable[[Sequence[Job]], Sequence[Result]],
    jobs: Sequence[Job],
    shape: Callable[[Job], Hashable],
) -> list[Result]:
    """`run` once for all jobs of a shape; the results in the jobs' order."""
    batches: dict[Hashable, list[int]] = {}
    for i, job in enumerate(jobs):
        batches.setdefault(shape(job), []).append(i)
    results: dict[int, Result] = {}
    for batch in batches.values():
        results.update(zip(batch, run([jobs[i] for i in batch]), strict=True))
    return [results[i] for i in range(len(jobs))]
