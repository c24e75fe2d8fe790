"""What happens to a voice between a mouth and a microphone, drawn at random.

`distort` works on the wave: speed, room, noise, telephone, level. What is cheaper on features
(formants by a warped filterbank, tilt, masks) is done there.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from aqaa.recipe.speech.voices import Wave

RATE = 16_000  # Hz
SPEEDS = (0.9, 1.13)  # resampled: tempo, pitch and formants go together
MU = 255.0  # G.711's companding constant


def telephone(wave: Wave) -> Wave:
    """300 to 3,400 Hz and 8-bit mu-law at 8 kHz, as a phone line does; 16 kHz in and out."""
    narrow = soxr.resample(wave, RATE, RATE // 2)
    spectrum = np.fft.rfft(narrow)
    hertz = np.fft.rfftfreq(len(narrow), 2 / RATE)
    spectrum *= 1 / (1 + (250 / np.maximum(hertz, 1)) ** 8) / (1 + (hertz / 3500) ** 24)
    narrow = np.clip(np.fft.irfft(spectrum, len(narrow)), -1, 1)
    small = np.sign(narrow) * np.log1p(MU * np.abs(narrow)) / np.log1p(MU)
    small = np.round(small * 127) / 127
    narrow = np.sign(small) * np.expm1(np.abs(small) * np.log1p(MU)) / MU
    wide = soxr.resample(narrow.astype(np.float32), RATE // 2, RATE)
    return _fit(wide, len(wave))


def room(wave: Wave, rng: np.random.Generator) -> Wave:
    """Convolve with a made-up room: a direct path and an exponentially decaying noise tail."""
    seconds = rng.uniform(0.08, 0.45)  # to -60 dB
    n = int(seconds * RATE)
    tail = rng.standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    tail[: int(rng.uniform(0.001, 0.006) * RATE)] = 0
    response = rng.uniform(0.1, 0.7) * tail / np.sqrt((tail**2).sum())
    response[0] = 1.0
    size = 1 << int(np.ceil(np.log2(len(wave) + n)))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)[: len(wave)]
    return wet.astype(np.float32)


def noise(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise of unit power whose spectrum falls at a random slope: white, pink, brown or between."""
    spectrum = rng.standard_normal(n // 2 + 1) + 1j * rng.standard_normal(n // 2 + 1)
    slope = rng.uniform(0.0, 1.1)
    spectrum *= np.maximum(np.arange(n // 2 + 1), n / 400) ** -slope
    if rng.random() < 0.3:  # a hum or a whistle
        spectrum[int(rng.uniform(0.005, 0.4) * len(spectrum))] *= rng.uniform(5, 40)
    wave = np.fft.irfft(spectrum, n)
    return np.asarray(wave / np.sqrt((wave**2).mean() + 1e-20))


def add_noise(
    wave: Wave, decibels: float, rng: np.random.Generator, what: Wave | None = None
) -> Wave:
    """Mix `what` (or coloured noise) under `wave` at a signal-to-noise ratio of `decibels`."""
    other = noise(len(wave), rng) if what is None else _fit(what, len(wave)).astype(np.float64)
    power = np.sqrt((wave.astype(np.float64) ** 2).mean() + 1e-12)
    level = np.sqrt((other**2).mean() + 1e-12)
    mixed: Wave = (wave + other * (power / level) * 10 ** (-decibels / 20)).astype(np.float32)
    return mixed


def change_speed(wave: Wave, speed: float) -> Wave:
    """Play `wave` `speed` times as fast; pitch and formants rise with it."""
    return np.asarray(soxr.resample(wave, RATE, RATE / speed, quality="LQ"), np.float32)


def distort(wave: Wave, rng: np.random.Generator, babble: Wave | None = None) -> Wave:
    """A random channel for `wave` (float32, 16 kHz); same length. `babble` is another's speech."""
    if rng.random() < 0.35:
        wave = room(wave, rng)
    if rng.random() < 0.65:
        talk = babble if babble is not None and rng.random() < 0.2 else None
        wave = add_noise(wave, rng.uniform(14 if talk is not None else 6, 32), rng, talk)
    wave = level(wave, rng.uniform(-26, -1))
    return telephone(wave) if rng.random() < 0.18 else wave


def level(wave: Wave, decibels: float) -> Wave:
    """Scale to a peak of `decibels` below full scale."""
    peak = float(np.abs(wave).max()) + 1e-9
    return (wave * (10 ** (decibels / 20) / peak)).astype(np.float32)


def _fit(wave: Wave, n: int) -> Wave:
    if len(wave) >= n:
        return wave[:n]
    return np.pad(wave, (0, n - len(wave)), mode="wrap" if len(wave) else "constant")
