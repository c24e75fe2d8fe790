"""What happens to a voice between a mouth and a recording, drawn at random.

`distort` works on the wave: room and distance, noise, microphone, gain, telephone, level. What is
cheaper on features (formants by a warped filterbank, tilt, masks) is done there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import soxr

from aqaa.recipe.speech.noises import Sound, draw_noise
from aqaa.recipe.speech.rooms import draw_room, response, reverberate
from aqaa.recipe.speech.voices import Wave

RATE = 16_000  # Hz
SPEEDS = (0.87, 1.16)  # resampled: tempo, pitch and formants go together
MU = 255.0  # G.711's companding constant
FAR, NEAR = (0.7, 4.0), (0.15, 0.7)  # metres from mouth to microphone
DECAY = (0.12, 0.6)  # seconds in which a room dies away by 60 dB
SNR = (3.0, 32.0)  # dB
LEVEL = (-40.0, 0.0)  # dB of the peak below full scale
GAIN_BLOCK = RATE // 100  # samples in which an automatic gain stands still


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


def in_room(wave: Wave, rng: np.random.Generator, distance: float, decay: float) -> Wave:
    """As heard `distance` metres away in a room that dies away in `decay` seconds."""
    return reverberate(wave, response(draw_room(rng, distance, decay), rng))


def laptop(wave: Wave, rng: np.random.Generator) -> Wave:
    """A small microphone behind a grille: no bass, less treble, a few resonances."""
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    shape = 1 / (1 + (rng.uniform(90, 260) / np.maximum(hertz, 1)) ** 4)
    shape /= 1 + (hertz / rng.uniform(4500, 7800)) ** 8
    for _ in range(int(rng.integers(1, 5))):
        octaves = np.log2(np.maximum(hertz, 1) / rng.uniform(300, 6000))
        shape *= 10 ** (rng.normal(0, 4) / 20 * np.exp(-((octaves / rng.uniform(0.1, 0.5)) ** 2)))
    return np.fft.irfft(np.fft.rfft(wave) * shape, len(wave)).astype(np.float32)


def automatic_gain(wave: Wave, rng: np.random.Generator) -> Wave:
    """A gain that follows the loudness of the last moments: quiet is raised, pauses too."""
    blocks = -(-len(wave) // GAIN_BLOCK)
    padded = np.pad(wave.astype(np.float64), (0, blocks * GAIN_BLOCK - len(wave)))
    power = np.square(padded.reshape(blocks, GAIN_BLOCK)).mean(1)
    keep = np.exp(-GAIN_BLOCK / RATE / rng.uniform(0.1, 1.0))  # its time constant, seconds
    followed = accumulate(power, lambda s, p: keep * s + (1 - keep) * p, initial=power.mean())
    smooth = np.array([*followed][1:])
    floor = power.mean() * 10 ** (-rng.uniform(1.0, 3.0))  # it raises no more than 10 to 30 dB
    gain = (smooth + floor + 1e-12) ** (-0.5 * rng.uniform(0.4, 1.0))
    at = (np.arange(blocks) + 0.5) * GAIN_BLOCK
    evened: Wave = (wave * np.interp(np.arange(len(wave)), at, gain)).astype(np.float32)
    return evened


def add_noise(
    wave: Wave, decibels: float, rng: np.random.Generator, talkers: Sequence[Wave] = ()
) -> Wave:
    """Noise under `wave` at a signal-to-noise ratio of `decibels`; see `draw_noise`."""
    return mix(wave, draw_noise(len(wave), rng, talkers), decibels)


def mix(wave: Wave, other: Sound, decibels: float) -> Wave:
    """`other`, of a power of one, under `wave`, its power `decibels` below that of `wave`."""
    power = np.sqrt((wave.astype(np.float64) ** 2).mean() + 1e-12)
    mixed: Wave = (wave + other * power * 10 ** (-decibels / 20)).astype(np.float32)
    return mixed


def change_speed(wave: Wave, speed: float) -> Wave:
    """Play `wave` `speed` times as fast; pitch and formants rise with it."""
    return np.asarray(soxr.resample(wave, RATE, RATE / speed, quality="LQ"), np.float32)


def level(wave: Wave, decibels: float) -> Wave:
    """Scale to a peak of `decibels` below full scale."""
    peak = float(np.abs(wave).max()) + 1e-9
    return (wave * (10 ** (decibels / 20) / peak)).astype(np.float32)


def recorded(wave: Wave) -> Wave:
    """As 16 bits hold it: what is too loud is clipped, what is too quiet is steps."""
    return (np.round(np.clip(wave, -1, 1) * 32767) / 32767).astype(np.float32)


def distort(wave: Wave, rng: np.random.Generator, talkers: Sequence[Wave] = ()) -> Wave:
    """A random way of `wave` (float32, 16 kHz) into a recording; same length.

    Args:
        wave: clean speech.
        rng: draws all.
        talkers: other people's speech, for babble.
    """
    place = rng.random()
    if place < 0.7:
        far = place < 0.45
        wave = in_room(wave, rng, rng.uniform(*(FAR if far else NEAR)), rng.uniform(*DECAY))
    if rng.random() < 0.75:
        wave = add_noise(wave, rng.uniform(*SNR), rng, talkers)
    device = rng.random()
    if device < 0.35:
        wave = laptop(wave, rng)
    if rng.random() < 0.2:
        wave = automatic_gain(wave, rng)
    loud = rng.uniform(1.0, 12.0) if rng.random() < 0.08 else rng.uniform(*LEVEL)
    wave = recorded(level(wave, loud))
    return telephone(wave) if device > 0.85 else wave


def _fit(wave: Wave, n: int) -> Wave:
    return wave[:n] if len(wave) >= n else np.pad(wave, (0, n - len(wave)))
