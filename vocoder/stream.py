"""Speaking an answer chunk by chunk, without a seam, and many answers' chunks in one call.

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

Chunks of several voices and at several places of their schedules are computed together. In the flow
shorter windows are padded at their end and masked. HiFT sees `context` frames to either side and no
further: shorter pieces get more frames of silence before their context, which changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aqaa.models.bundle import VocoderConfig
from aqaa.models.copies import to_cpu, to_device
from aqaa.models.graphs import GraphRunner, filled_up
from aqaa.models.groups import GROUP_TOKENS
from aqaa.vocoder.flow import Flow, token_positions
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.mel import MEL_FLOOR
from aqaa.vocoder.noise import Noise
from aqaa.vocoder.padding import Mask, mask_of, stack_padded
from aqaa.vocoder.state import Chunk, Grid, Prompt, StreamState, advance, fresh
from aqaa.vocoder.voices import Voice

SOUND_FADE_SAMPLES = 256  # in which a chunk's sound takes over from what its predecessor foresaw
EDGE_FADE_SAMPLES = 64  # 3 ms, in which an answer begins and ends, so that neither edge clicks
# Chunks whose windows fall into one bucket of so many frames (0.37 s) are computed together: a
# shorter one is padded by less than that, and the shapes that ever occur are few.
BUCKET_FRAMES = 32

BUCKET_TOKENS = 16  # the same for their tokens, where shapes are fixed
# Chunks in one call. On a CPU two of nano's take 1.8 times as long as one, four 3.2 times, and who
# comes meanwhile waits for all. On an H100 32 of the published take six times as long as one.
CPU_BATCH, GPU_BATCH = 2, 32

Row = TypeVar("Row")
Sound = NDArray[np.float32]
Synthesised = tuple[StreamState, Sound]


class ChunkSynthesiser:
    """The networks and the schedule that all streams share. Its methods change nothing."""

    def __init__(
        self,
        flow: Flow,
        hift: Hift,
        config: VocoderConfig,
        *,
        bucket_frames: int = BUCKET_FRAMES,
        fixed_shapes: bool | None = None,
    ) -> None:
        """Take the networks as they are.

        Args:
            flow: tokens to mel.
            hift: mel to wave; what passes between the networks has its dtype.
            config: steps, temperature and schedule.
            bucket_frames: chunks whose windows differ by less may share a call.
            fixed_shapes: pad every batch to one of few shapes, for CUDA graphs. By default where
                the networks are on a GPU.
        """
        self.flow = flow
        self.hift = hift
        self.config = config
        self.bucket_frames = bucket_frames
        self.hop = hift.config.samples_per_frame
        self.harmonics = hift.config.nb_harmonics + 1
        self.context = hift.config.receptive_frames
        self.device = hift.window.device
        self.dtype = flow.encoder_proj.weight.dtype
        self.fixed_shapes = self.device.type == "cuda" if fixed_shapes is None else fixed_shapes
        self._run_flow = GraphRunner(self._flow_mel)
        self._run_f0 = GraphRunner(lambda mel: (hift.f0(mel),))
        self._run_decode = GraphRunner(lambda mel, source: (hift.decode(mel, source),))
        # A stream of its own: the tokenizers' small kernels do not wait behind a chunk's.
        self._cuda = _stream_on(self.device)
        if self._cuda is not None:
            self._cuda.wait_stream(torch.cuda.current_stream(self.device))  # for the weights

    @property
    def max_batch(self) -> int:
        """Chunks that are computed in one call at most."""
        return GPU_BATCH if self.fixed_shapes else CPU_BATCH

    def seal(self) -> None:
        """Record no more graphs: see `GraphRunner.seal`."""
        for runner in (self._run_flow, self._run_f0, self._run_decode):
            runner.seal()

    def padded_shape(self, chunk: Chunk) -> tuple[int, ...]:
        """Of its rows in the networks' batches: chunks that have it alike are run by one graph."""
        state = chunk.state
        new = chunk.last - state.frames
        heard = self._audible(new, fresh(chunk, self.config))
        return (
            self._size(len(state.prompt.tokens) + len(chunk.tokens), BUCKET_TOKENS),
            self._size(chunk.frames, self.bucket_frames),
            self._size(self.context + new, self.bucket_frames),
            self._size(self.context + heard, self.bucket_frames),
        )

    @torch.inference_mode()
    def prompt(self, voice: Voice) -> Prompt:
        """The part of every window that `voice` determines."""
        count, frames = len(voice.tokens), len(voice.mel)
        with torch.cuda.stream(self._cuda):
            embedding = voice.embedding[None].to(self.device, self.dtype)
            return Prompt(
                voice.tokens,
                token_positions(0, frames, count, count / frames),
                voice.mel.T.contiguous().to(self.hift.window),
                self.flow.speaker(embedding)[0],
            )

    @torch.inference_mode()
    def start(self, prompt: Prompt, noise: Noise, speed: float) -> StreamState:
        """A stream before its first token, as if silence had just been spoken."""
        with torch.cuda.stream(self._cuda):
            return self._start(prompt, noise, speed)

    def _start(self, prompt: Prompt, noise: Noise, speed: float) -> StreamState:
        mels = prompt.mel.shape[0]
        phase = torch.zeros(1, dtype=torch.float64, device=self.device)
        f0 = self.hift.window.new_zeros(1, self.context)
        drawn = noise.source(-self.context, 0, self.harmonics, self.hop)[None].to(f0)
        source, phases = self.hift.source(
            f0, phase, noise.offsets(self.harmonics)[None].to(f0), drawn
        )
        return StreamState(
            prompt=prompt,
            prompt_noise=noise.mel(-prompt.frames, 0, mels),
            noise=noise,
            grid=Grid(self.hift.config.sampling_rate, self.hop, speed),
            tokens=np.zeros(0, np.int64),
            first_group=0,
            next_group=0,
            chunk=0,
            frames=0,
            mel=self._silence(mels, self.context),
            ahead=self._silence(mels, 0),
            source=source[0, 0],
            phase=phases[0, -1].clone(),
            sound=torch.zeros(0, dtype=f0.dtype),
        )

    def shape_of(self, chunk: Chunk) -> Hashable:
        """Key for batching: chunks of equal shape are computed in one call of each network."""
        return -(-chunk.frames // self.bucket_frames)

    @torch.inference_mode()
    def synthesise(self, chunks: Sequence[Chunk]) -> list[Synthesised]:
        """Each chunk's stream after it, and its sound, float32 in [-1, 1].

        Every chunk sounds as it does alone, whatever else is in the call.
        """
        shapes: dict[Hashable, list[int]] = {}
        for i, chunk in enumerate(chunks):
            shapes.setdefault(self.shape_of(chunk), []).append(i)
        results: dict[int, Synthesised] = {}
        for batch in shapes.values():
            made = self._synthesise([chunks[i] for i in batch])
            results.update(zip(batch, made, strict=True))
        return [results[i] for i in range(len(chunks))]

    def _synthesise(self, chunks: Sequence[Chunk]) -> list[Synthesised]:
        """One call of each network. Whatever thread asks, a GPU computes all calls in turn."""
        with torch.cuda.stream(self._cuda):
            return self._spoken(chunks)

    def _spoken(self, chunks: Sequence[Chunk]) -> list[Synthesised]:
        mels = self._mels(chunks)
        pieces = self._voiced([_piece(c, mel) for c, mel in zip(chunks, mels, strict=True)])
        sounds = self._sounds(pieces)
        return [self._finish(piece, sound) for piece, sound in zip(pieces, sounds, strict=True)]

    def _mels(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """The flow's mel float32 [M, last - first] of each chunk's frames."""
        rows = self._filled_up(chunks)
        prompts = [chunk.state.prompt for chunk in rows]
        tokens = [torch.cat([c.state.prompt.tokens, torch.from_numpy(c.tokens)]) for c in rows]
        counts, frames = [len(row) for row in tokens], [chunk.frames for chunk in rows]
        token_size = self._size(max(counts), BUCKET_TOKENS)
        size = self._size(max(frames), self.bucket_frames)
        speaker = torch.stack([prompt.speaker for prompt in prompts])
        (mel,) = self._run_flow(
            to_device(stack_padded(tokens, token_size), self.device),
            to_device(stack_padded([_positions(chunk) for chunk in rows], size), self.device),
            self._noise(rows, size),
            stack_padded([prompt.mel for prompt in prompts], size),
            speaker,
            mask_of(counts, speaker, token_size if self.fixed_shapes else None),
            mask_of(frames, speaker, size if self.fixed_shapes else None),
        )
        return [
            row[:, chunk.state.prompt.frames : chunk.frames]
            for row, chunk in zip(mel[: len(chunks)], chunks, strict=True)
        ]

    def _flow_mel(
        self,
        tokens: Tensor,
        positions: Tensor,
        noise: Tensor,
        prompts: Tensor,
        speaker: Tensor,
        token_mask: Mask,
        frame_mask: Mask,
    ) -> tuple[Tensor]:
        """The flow whole: mel [B, M, F] of tokens [B, N], prompts' mels at its beginning."""
        mu = self.flow.estimate(tokens, positions, token_mask, frame_mask)
        steps = self.config.steps
        return (self.flow.sample(mu, noise, speaker, prompts.to(mu), steps, frame_mask),)

    def _filled_up(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows in a number that graphs are recorded for, where shapes are fixed."""
        return filled_up(rows) if self.fixed_shapes else rows

    def _size(self, longest: int, step: int) -> int:
        """The length that rows are padded to."""
        return -(-longest // step) * step if self.fixed_shapes else longest

    def _noise(self, chunks: Sequence[Chunk], size: int) -> Tensor:
        """Where the path begins for the prompt's and the windows' frames, [B, M, size]."""
        mels = chunks[0].state.mel.shape[0]
        if self.config.temperature == 0.0:
            return self.hift.window.new_zeros(len(chunks), mels, size)
        rows = [
            torch.cat([c.state.prompt_noise, c.state.noise.mel(c.first, c.last, mels)], dim=1)
            for c in chunks
        ]
        return self._to_hift(stack_padded(rows, size)) * self.config.temperature

    def _to_hift(self, tensor: Tensor) -> Tensor:
        """From the CPU's memory to HiFT's device, in its dtype."""
        return to_device(tensor, self.device, self.hift.window.dtype)

    def _voiced(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """The pieces with their sources. Rows end at the same place: padding comes first."""
        mel = self._padded_mel(self._filled_up(pieces))
        size = mel.shape[2] - self.context
        (pitch,) = self._run_f0(mel)
        f0 = pitch[: len(pieces), self.context :]
        for row, piece in zip(f0, pieces, strict=True):
            row[: size - piece.new] = 0.0  # so that the phase does not move before its frames
        states = [piece.chunk.state for piece in pieces]
        drawn = [
            state.noise.source(state.frames, state.frames + piece.new, self.harmonics, self.hop)
            for state, piece in zip(states, pieces, strict=True)
        ]
        offsets = torch.stack([state.noise.offsets(self.harmonics) for state in states])
        source, phases = self.hift.source(
            f0,
            torch.stack([state.phase for state in states]),
            self._to_hift(offsets),
            self._to_hift(stack_padded(drawn, size * self.hop, left=True)),
        )
        counts = [fresh(piece.chunk, self.config) for piece in pieces]
        return [
            replace(
                piece,
                fresh=spoken,
                source=torch.cat([piece.chunk.state.source, wave[0, -piece.new * self.hop :]]),
                phase=ends[size - piece.new + spoken - 1] if spoken else piece.chunk.state.phase,
            )
            for piece, spoken, wave, ends in zip(pieces, counts, source, phases, strict=True)
        ]

    def _sounds(self, pieces: Sequence[_Piece]) -> list[Tensor]:
        """HiFT's sound of each piece from its first unspoken frame on, in the CPU's memory.

        Of the frames held back it is computed as far as the next chunk's sound fades in, and HiFT
        is given as many more as it can see.
        """
        cut = [self._heard(piece) for piece in pieces]
        rows = self._filled_up(cut)
        mel = self._padded_mel(rows)
        length = mel.shape[2] * self.hop
        source = stack_padded([piece.source for piece in rows], length, left=True)[:, None]
        (waves,) = self._run_decode(mel, source)
        waves = to_cpu(waves[: len(pieces)])
        return [wave[-piece.new * self.hop :] for wave, piece in zip(waves, cut, strict=True)]

    def _heard(self, piece: _Piece) -> _Piece:
        """The piece without the frames at its end that change nothing of the sound it gives."""
        new = self._audible(piece.new, piece.fresh)
        end = self.context + new
        return replace(
            piece, new=new, mel=piece.mel[:, :end], source=piece.source[: end * self.hop]
        )

    def _audible(self, new: int, fresh: int) -> int:
        """Of so many new frames those that change something of the sound that is given."""
        return min(new, fresh + -(-SOUND_FADE_SAMPLES // self.hop) + self.context)

    def _padded_mel(self, pieces: Sequence[_Piece]) -> Tensor:
        """[B, M, context + the most new frames]: silence before the context of shorter pieces."""
        size = self._size(max(piece.mel.shape[1] for piece in pieces), self.bucket_frames)
        silence = log(MEL_FLOOR)
        return torch.stack(
            [
                functional.pad(piece.mel, (size - piece.mel.shape[1], 0), value=silence)
                for piece in pieces
            ]
        )

    def _silence(self, mels: int, frames: int) -> Tensor:
        return self.hift.window.new_full((mels, frames), log(MEL_FLOOR))

    def _finish(self, piece: _Piece, sound: Tensor) -> Synthesised:
        """Join the sound to what was foreseen of it, cut it, and keep what the next chunk needs."""
        chunk, state, grid = piece.chunk, piece.chunk.state, piece.chunk.state.grid
        sound = sound.clone()
        overlap = len(state.sound)
        if overlap:
            sound[:overlap] = torch.lerp(state.sound, sound[:overlap], _rise(overlap, sound))
        if not state.frames:
            edge = min(EDGE_FADE_SAMPLES, len(sound))
            sound[:edge] *= _rise(edge, sound)
        spoken = piece.fresh * self.hop
        if chunk.last_of_answer:
            spoken = grid.samples(chunk.end) - state.frames * self.hop
            edge = min(EDGE_FADE_SAMPLES, spoken)
            sound[spoken - edge : spoken] *= _rise(edge, sound).flip(0)
        end = self.context + piece.fresh
        after = replace(
            advance(chunk, self.config),
            mel=piece.mel[:, end - self.context : end].clone(),
            ahead=piece.mel[:, end:].clone(),
            source=piece.source[piece.fresh * self.hop : end * self.hop].clone(),
            phase=piece.phase.clone(),
            sound=sound[spoken : spoken + SOUND_FADE_SAMPLES].clone(),
        )
        return after, sound[:spoken].numpy()


def _stream_on(device: torch.device) -> torch.cuda.Stream | None:
    """A new CUDA stream; None on a CPU."""
    if device.type != "cuda":
        return None
    make: Callable[[torch.device], torch.cuda.Stream] = torch.cuda.Stream
    return make(device)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Frames that HiFT runs on: `context` spoken ones, `fresh` to be spoken, some to hold back."""

    chunk: Chunk
    new: int  # frames after the context
    mel: Tensor  # [M, context + new]
    fresh: int
    source: Tensor  # [(context + new) * hop]
    phase: Tensor  # after the fresh frames, []


def _piece(chunk: Chunk, mel: Tensor) -> _Piece:
    """The kept context, then the frames from the first unspoken one on; its source is not made."""
    state = chunk.state
    new = mel[:, state.frames - chunk.first :].clone()
    overlap = min(state.ahead.shape[1], new.shape[1])
    if overlap:
        gain = _rise(overlap, mel)
        new[:, :overlap] = torch.lerp(state.ahead[:, :overlap], new[:, :overlap], gain)
    whole = torch.cat([state.mel, new], dim=1)
    return _Piece(chunk, new.shape[1], whole, 0, state.source, state.phase)


def _positions(chunk: Chunk) -> Tensor:
    """Where the prompt's and the window's frames lie among their tokens, float64 [F]."""
    prompt, count = chunk.state.prompt, len(chunk.tokens)
    window = token_positions(
        chunk.first,
        chunk.last - chunk.first,
        count,
        chunk.state.grid.frame_tokens,
        chunk.context * GROUP_TOKENS,
    )
    return torch.cat([prompt.positions, len(prompt.tokens) + window])


def _rise(length: int, like: Tensor) -> Tensor:
    """A gain that goes smoothly from 0 to 1, both left out, [length], of the kind of `like`."""
    steps = torch.arange(1, length + 1, dtype=like.dtype, device=like.device) / (length + 1)
    return torch.sin(steps * (torch.pi / 2)).square()
