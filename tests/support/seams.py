"""How a streamed sound differs from the same sound made in one piece: at joins and elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from aqaa.models.bundle import VocoderConfig
from aqaa.vocoder.config import MelConfig
from aqaa.vocoder.mel import log_mel
from aqaa.vocoder.noise import KeyedNoise
from aqaa.vocoder.state import due, feed
from aqaa.vocoder.stream import Sound, Speaker
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
    def distance(self) -> float:
        """Mean log-mel distance away from joins, in nepers."""
        return float(np.concatenate([one.elsewhere for one in self.seams]).mean())

    @property
    def join_ratio(self) -> float:
        """Mean log-mel distance at joins over that away from them."""
        joins = np.concatenate([one.at_joins for one in self.seams])
        return float(joins.mean()) / self.distance

    @property
    def tail_ratio(self) -> float:
        """Mean log-mel distance in the last 40 ms over that away from joins."""
        tails = np.concatenate([one.tail for one in self.seams])
        return float(tails.mean()) / self.distance

    @property
    def clicks(self) -> int:
        """Joins whose jump exceeds the 99.9th percentile of the jumps elsewhere."""
        return sum(int((one.join_jumps > one.rare_jump).sum()) for one in self.seams)

    @property
    def joins(self) -> int:
        """Joins in all."""
        return sum(len(one.join_jumps) for one in self.seams)

    @property
    def same_lengths(self) -> bool:
        """Whether every stream is as long as its whole, to the sample."""
        return all(ours == theirs for ours, theirs in (one.lengths for one in self.seams))


def streamed(
    vocoder: Vocoder, utterances: Sequence[Sequence[int]], voice: str, config: VocoderConfig
) -> list[list[Sound]]:
    """The pieces of each utterance under `config`'s schedule.

    The utterances go in step, as sessions do that wait at the same time, which is much faster.
    """
    speaker = Speaker(vocoder.speaker.flow, vocoder.speaker.hift, config)
    prompt = speaker.prompt(vocoder.voices[voice])
    states = [feed(speaker.start(prompt, KeyedNoise(), 1.0), tokens) for tokens in utterances]
    pieces: list[list[Sound]] = [[] for _ in states]
    speaking = list(range(len(states)))
    while speaking:
        chunks, ended = [], []
        for i in speaking:
            chunk = due(states[i], config)
            if chunk is None:
                chunk = due(states[i], config, final=True)
                ended.append(i)
            assert chunk is not None
            chunks.append(chunk)
        for i, (state, sound) in zip(speaking, speaker.speak(chunks), strict=True):
            states[i] = state
            pieces[i].append(sound)
        speaking = [i for i in speaking if i not in ended]
    return pieces


def whole(
    vocoder: Vocoder, utterances: Sequence[Sequence[int]], voice: str, config: VocoderConfig
) -> list[Sound]:
    """Each utterance in one piece: its only chunk is its last."""
    speaker = Speaker(vocoder.speaker.flow, vocoder.speaker.hift, config)
    prompt = speaker.prompt(vocoder.voices[voice])
    chunks = []
    for tokens in utterances:
        chunk = due(feed(speaker.start(prompt, KeyedNoise(), 1.0), tokens), config, final=True)
        assert chunk is not None
        chunks.append(chunk)
    return [sound for _, sound in speaker.speak(chunks)]
