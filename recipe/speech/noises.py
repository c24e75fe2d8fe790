"""What else a microphone hears: coloured noise, hum, a kitchen, other people. All made here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz
Sound = NDArray[np.float64]


def unit(wave: Sound) -> Sound:
    """`wave` with a power of one."""
    return np.asarray(wave / np.sqrt((wave**2).mean() + 1e-20))


def coloured(n: int, rng: np.random.Generator) -> Sound:
    """Noise whose spectrum falls at a random slope: white, pink, brown or between."""
    spectrum = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
    slope = rng.uniform(0.0, 1.1)
    spectrum *= np.maximum(np.arange(n // 2 + 1), n / 400) ** -slope
    if rng.random() < 0.3:  # a whistle
        spectrum[int(rng.uniform(0.005, 0.4) * len(spectrum))] *= rng.uniform(5, 40)
    return unit(np.fft.irfft(spectrum, n))


def hum(n: int, rng: np.random.Generator) -> Sound:
    """The mains, 50 or 60 Hz with harmonics, over a little noise."""
    base = rng.choice((50.0, 60.0)) * rng.uniform(0.998, 1.002)
    seconds = np.arange(n) / RATE
    out = 0.1 * coloured(n, rng)
    for harmonic in range(1, int(rng.integers(3, 14))):
        height = rng.uniform(0.2, 1.0) / harmonic ** rng.uniform(0.4, 1.2)
        out += height * np.sin(2 * np.pi * (base * harmonic * seconds + rng.random()))
    return unit(out)


def kitchen(n: int, rng: np.random.Generator) -> Sound:
    """Dishes (struck bars that ring), running water, a fan or a machine, in random shares."""
    out = rng.uniform(0.1, 1.0) * coloured(n, rng)
    if rng.random() < 0.5:
        out += rng.uniform(0.2, 1.0) * _band(
            n, rng.uniform(400, 1500), rng.uniform(3000, 7000), rng
        )
    if rng.random() < 0.4:  # a machine: noise that swells with its turns
        turns = rng.uniform(5, 40)
        swell = 1 + rng.uniform(0.2, 0.9) * np.sin(2 * np.pi * turns * np.arange(n) / RATE)
        out += rng.uniform(0.3, 1.0) * swell * _band(n, 80, rng.uniform(800, 3000), rng)
    for _ in range(rng.poisson(rng.uniform(0.2, 2.5) * n / RATE)):
        struck = _dish(rng)
        start = int(rng.integers(n))
        end = min(n, start + len(struck))
        out[start:end] += rng.lognormal(1.2, 0.7) * struck[: end - start]
    return unit(out)


def babble(n: int, talkers: Sequence[NDArray[np.float32]], rng: np.random.Generator) -> Sound:
    """One to seven of `talkers` at once, each from a random place of what he says on."""
    out = np.zeros(n)
    for _ in range(int(rng.integers(1, 8))):
        talk = talkers[int(rng.integers(len(talkers)))]
        if len(talk):
            shifted = np.roll(talk, int(rng.integers(len(talk))))
            out += rng.uniform(0.3, 1.0) * np.resize(shifted, n)
    return unit(out)


def draw_noise(
    n: int, rng: np.random.Generator, talkers: Sequence[NDArray[np.float32]] = ()
) -> Sound:
    """Any of these, of a power of one."""
    kind = rng.random()
    if talkers and kind < 0.25:
        return babble(n, talkers, rng)
    if kind < 0.55:
        return kitchen(n, rng)
    return hum(n, rng) if kind < 0.65 else coloured(n, rng)


def _band(n: int, low: float, high: float, rng: np.random.Generator) -> Sound:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    spectrum[(hertz < low) | (hertz > high)] = 0
    return unit(np.fft.irfft(spectrum, n))


def _dish(rng: np.random.Generator) -> Sound:
    """Some modes of a struck cup, spoon or pan, and the click of it."""
    seconds = np.arange(int(rng.uniform(0.05, 0.4) * RATE)) / RATE
    out = np.zeros(len(seconds))
    base = rng.uniform(500, 3000)
    for ratio in (1.0, 2.76, 5.40, 8.93):  # of a free bar (Rayleigh)
        if base * ratio < 0.48 * RATE:
            fade = np.exp(-seconds * rng.uniform(8, 60) * ratio**0.5)
            out += rng.uniform(0.1, 1.0) * fade * np.sin(2 * np.pi * base * ratio * seconds)
    click = min(len(out), 64)
    out[:click] += rng.uniform(0.2, 1.5) * rng.standard_normal(click) * np.linspace(1, 0, click)
    return out
