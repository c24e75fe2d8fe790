"""A spectrogram of a stream's sound, with a mark where each piece of the stream begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FFT_SAMPLES, HOP_SAMPLES = 1024, 256
RANGE_DB = 80.0  # below the loudest point is black
FLOOR_AMPLITUDE = 1e-6  # silence, so that its logarithm is finite
INCHES_PER_SECOND, MIN_WIDTH_INCHES, HEIGHT_INCHES = 3.0, 4.0, 4.0


def spectrogram(sound: NDArray[np.float32], rate: int, joins: Iterable[int]) -> Figure:
    """Level in dB below the loudest point over time and frequency, with a line at every join.

    Args:
        sound: float32 [N] in [-1, 1].
        rate: of `sound`, in Hz.
        joins: samples at which a piece of the stream began.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("a plot needs matplotlib: pip install 'aqaa[plot]'") from error
    padded = np.pad(sound, FFT_SAMPLES // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(FFT_SAMPLES))).T
    level = 20 * np.log10(spectrum + FLOOR_AMPLITUDE)
    seconds = len(sound) / rate
    size = (max(MIN_WIDTH_INCHES, INCHES_PER_SECOND * seconds), HEIGHT_INCHES)
    figure = Figure(figsize=size, layout="tight")
    axes = figure.subplots()
    axes.imshow(
        level - level.max(), vmin=-RANGE_DB, vmax=0.0, cmap="magma", origin="lower", aspect="auto",
        extent=(0.0, seconds, 0.0, rate / 2000),
    )  # fmt: skip
    for join in joins:
        axes.axvline(join / rate, color="cyan", linestyle=":", linewidth=1)
    axes.set(xlabel="seconds", ylabel="kHz")
    return figure
