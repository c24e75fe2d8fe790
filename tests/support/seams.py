"""How a streamed sound differs from the same sound made in one piece: at joins and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import published_stream
import torch
from numpy.typing import NDArray

from aqaa.models.bundle import VocoderConfig
from aqaa.vocoder.config import MelConfig
from aqaa.vocoder.mel import log_mel
from aqaa.vocoder.noise import Noise
from aqaa.vocoder.state import Chunk, Grid, StreamState, due, feed
from aqaa.vocoder.stream import ChunkSynthesiser, Sound
from aqaa.vocoder.vocoder import Vocoder

NEAR = 2  # mel frames on either side of a join that count as the join (23 ms)
TAIL_SECONDS = 0.04  # the end that users of this vocoder family find noisy
RARE = 99.9  # percentile of sample-to-sample jumps that no join may exceed


@dataclass(frozen=True)
class Seams:
    """One utterance's distances, pooled by `Report`."""

    at_joins: NDArray[np.float32]  # log-mel distance of every frame near a join
    elsewhere: NDArray[np.float32]
    tail: NDArray[np.float32]  # of the last 40 ms
    joins: NDArray[np.int64]  # the sample that begins a piece
    join_jumps: NDArray[np.float32]  # |x[n] - x[n-1]| there
    rare_jump: float  # 99.9th percentile of the other jumps
    lengths: tuple[int, int]

    @property
    def clicks(self) -> NDArray[np.bool_]:
        """Which joins have a jump that is rare elsewhere."""
        return self.join_jumps > self.rare_jump


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
    return Seams(
        distance[near],
        distance[~near & ~tail],
        distance[tail],
        joins,
        jumps[joins - 1],
        float(np.percentile(jumps[~at_join], RARE)),
        (len(streamed), len(whole)),
    )


@dataclass(frozen=True)
class Report:
    """Many utterances' seams."""

    seams: Sequence[Seams]

    @property
    def distance(self) -> float:
        """Mean log-mel distance away from joins, in nepers."""
        return float(np.concatenate([one.elsewhere for one in self.seams]).mean())

    @property
    def join_distance(self) -> float:
        """Mean log-mel distance at joins, in nepers."""
        return float(np.concatenate([one.at_joins for one in self.seams]).mean())

    @property
    def join_ratio(self) -> float:
        """Mean log-mel distance at joins over that away from them."""
        return self.join_distance / self.distance

    @property
    def tail_ratio(self) -> float:
        """Mean log-mel distance in the last 40 ms over that away from joins."""
        tails = np.concatenate([one.tail for one in self.seams])
        return float(tails.mean()) / self.distance

    @property
    def clicks(self) -> int:
        """Joins whose jump exceeds the 99.9th percentile of the jumps elsewhere."""
        return sum(int(one.clicks.sum()) for one in self.seams)

    @property
    def joins(self) -> int:
        """Joins in all."""
        return sum(len(one.join_jumps) for one in self.seams)

    @property
    def same_lengths(self) -> bool:
        """Whether every stream is as long as its whole, to the sample."""
        return all(ours == theirs for ours, theirs in (one.lengths for one in self.seams))


def whole_sounds(
    vocoder: Vocoder, utterances: Sequence[Sequence[int]], config: VocoderConfig, noise: Noise
) -> list[Sound]:
    """Each utterance in one piece, in the first voice."""
    synthesiser, states = _begin(vocoder, utterances, config, noise)
    return [
        sound for _, sound in synthesiser.synthesise([_last(state, config) for state in states])
    ]


def measure(
    vocoder: Vocoder,
    utterances: Sequence[Sequence[int]],
    config: VocoderConfig,
    noise: Noise,
    wholes: Sequence[Sound],
) -> Report:
    """The seams of `utterances` in the first voice under `config`'s schedule."""
    pieces = _streamed(*_begin(vocoder, utterances, config, noise), config)
    pairs = zip(pieces, wholes, strict=True)
    return Report([compare(parts, whole, vocoder.mel) for parts, whole in pairs])


def _begin(
    vocoder: Vocoder, utterances: Sequence[Sequence[int]], config: VocoderConfig, noise: Noise
) -> tuple[ChunkSynthesiser, list[StreamState]]:
    synthesiser = ChunkSynthesiser(vocoder.synthesiser.flow, vocoder.synthesiser.hift, config)
    prompt = synthesiser.prompt(next(iter(vocoder.voices.values())))
    return synthesiser, [
        feed(synthesiser.start(prompt, noise, 1.0), tokens) for tokens in utterances
    ]


def _last(state: StreamState, config: VocoderConfig) -> Chunk:
    chunk = due(state, config, final=True)
    if chunk is None:
        raise ValueError("an utterance without tokens has no seams")
    return chunk


def _streamed(
    synthesiser: ChunkSynthesiser, states: list[StreamState], config: VocoderConfig
) -> list[list[Sound]]:
    """Each stream's pieces. They go in step, as sessions do that wait at the same time: faster."""
    pieces: list[list[Sound]] = [[] for _ in states]
    speaking = list(range(len(states)))
    while speaking:
        chunks = [due(states[i], config) or _last(states[i], config) for i in speaking]
        for i, (state, sound) in zip(speaking, synthesiser.synthesise(chunks), strict=True):
            states[i] = state
            pieces[i].append(sound)
        speaking = [
            i for i, chunk in zip(speaking, chunks, strict=True) if not chunk.last_of_answer
        ]
    return pieces


def measure_published(
    vocoder: Vocoder, utterances: Sequence[Sequence[int]], noise: Noise, hop_tokens: int
) -> Report:
    """The seams of the published scheme (SPEC 7.2), with the noise tied to frames as ours is.

    The published code draws it anew in every call, which would take it further from the whole.
    """
    synthesiser = vocoder.synthesiser
    prompt = synthesiser.prompt(next(iter(vocoder.voices.values())))
    grid = Grid(vocoder.rate, synthesiser.hop, 1.0)
    known, mels = prompt.mel.shape[1], prompt.mel.shape[0]

    def pieces(tokens: Sequence[int], hop: int) -> list[Sound]:
        def at(call: int, frames: int) -> torch.Tensor:
            first = int(call * hop / grid.frame_tokens)
            parts = [noise.mel(-known, 0, mels), noise.mel(first, first + frames - known, mels)]
            return torch.cat(parts, dim=1)[None] * synthesiser.config.temperature

        calls = published_stream.speak(
            synthesiser.flow, synthesiser.hift, prompt, tokens, at,
            hop_tokens=hop,
            keep=published_stream.overlap_frames(vocoder.rate, synthesiser.hop),
            steps=synthesiser.config.steps,
        )  # fmt: skip
        return [call.sound.numpy() for call in calls]

    return Report(
        [
            compare(pieces(tokens, hop_tokens), pieces(tokens, len(tokens))[0], vocoder.mel)
            for tokens in utterances
        ]
    )
