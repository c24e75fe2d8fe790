"""Noise belongs to frames, whoever asks for them and in whatever order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from aqaa.vocoder.noise import KeyedNoise

FRAMES = st.integers(-200, 200)


@given(first=FRAMES, length=st.integers(0, 40), cut=st.integers(0, 40))
def test_parts_of_the_noise_are_parts_of_the_whole(first: int, length: int, cut: int) -> None:
    noise, middle = KeyedNoise(7), min(cut, length)
    whole = noise.mel(first, first + length, 8)
    parts = [
        noise.mel(first, first + middle, 8),
        noise.mel(first + middle, first + length, 8),
    ]
    assert torch.equal(torch.cat(parts, dim=1), whole)


@given(first=FRAMES, length=st.integers(1, 5))
def test_source_noise_has_every_sample_of_its_frames(first: int, length: int) -> None:
    noise = KeyedNoise(7)
    whole = noise.source(first - 1, first + length, 3, 16)
    assert torch.equal(noise.source(first, first + length, 3, 16), whole[:, 16:])


def test_frames_seeds_and_kinds_do_not_share_noise() -> None:
    frames = KeyedNoise(1).mel(-300, 300, 4).T
    other = KeyedNoise(2).mel(-300, 300, 4).T
    source = KeyedNoise(1).source(-300, 300, 4, 1).T
    drawn = torch.cat([frames, other, source])
    assert len(torch.unique(drawn, dim=0)) == len(drawn)


def test_who_is_given_noise_may_write_to_it() -> None:
    noise = KeyedNoise(3)
    before = noise.source(0, 16, 3, 4).clone(), noise.mel(0, 16, 4).clone()
    noise.source(0, 16, 3, 4).zero_()
    noise.mel(0, 16, 4).zero_()
    assert torch.equal(noise.source(0, 16, 3, 4), before[0])
    assert torch.equal(noise.mel(0, 16, 4), before[1])


def test_it_is_standard_normal() -> None:
    drawn = KeyedNoise(1).mel(0, 2000, 80)  # 160,000 values: 5 standard errors are 0.0125
    assert abs(float(drawn.mean())) < 0.0125
    assert abs(float(drawn.std()) - 1) < 0.0125


def test_the_fundamental_starts_at_phase_zero() -> None:
    offsets = KeyedNoise(1).offsets(9)
    assert offsets[0] == 0
    assert len(torch.unique(offsets)) == 9
