"""How many syllables a sound has: the hills of its loudness where vowels are loud.

A word of assent has one or two; who says more means it. No model is asked and no word is known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE

Samples = NDArray[np.float32]

STEP = TOKENIZER_RATE // 100  # samples between two values of the loudness: 10 ms
SMOOTH = np.hanning(9) / np.hanning(9).sum()  # over 70 ms: less than the shortest vowel
BAND = (300, 2500)  # Hz: a vowel's, and neither hum nor hiss
PROMINENT = 4.0  # dB that it rises before a vowel and falls behind it
AUDIBLE = 20.0  # dB below the loudest: what is quieter is no vowel


def syllables(sound: Samples) -> int:
    """Of `sound`, float32 [n] at 16 kHz. The last counts once it has begun to fade.

    Takes about a millisecond for a second of sound.
    """
    count = len(sound) // STEP
    if count < len(SMOOTH):
        return 0
    spectrum = np.fft.rfft(sound[: count * STEP])
    hertz = np.fft.rfftfreq(count * STEP, 1 / TOKENIZER_RATE)
    spectrum[(hertz < BAND[0]) | (hertz > BAND[1])] = 0
    power = np.square(np.fft.irfft(spectrum).reshape(count, STEP)).mean(axis=1)
    loudness = 10 * np.log10(np.convolve(power, SMOOTH, "same") + 1e-12)
    return _hills(loudness - loudness.max())


def _hills(loudness: NDArray[np.float64]) -> int:
    """Audible maxima with a valley of `PROMINENT` dB on either side of each; dB, the loudest 0."""
    found, rising, top, bottom = 0, True, -np.inf, 0.0
    for value in loudness.tolist():
        if rising:
            top = max(top, value)
            if value <= top - PROMINENT:
                found += top >= -AUDIBLE
                rising, bottom = False, value
        else:
            bottom = min(bottom, value)
            if value >= bottom + PROMINENT:
                rising, top = True, value
    return found
