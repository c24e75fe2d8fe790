"""A spectrogram as a PNG, drawn without a plotting library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FFT, HOP = 1024, 256
RANGE_DB = 80.0  # below the loudest point is black
SCALE = 2  # pixels a frame
# Black to white by way of colours that a colour-blind reader tells apart (dark blue, red, yellow).
_PALETTE = np.array([(0, 0, 0), (35, 25, 110), (170, 40, 90), (245, 170, 40), (255, 255, 240)])
_JOIN = (0, 230, 230)


def spectrogram(sound: NDArray[np.float32], joins: Iterable[int]) -> bytes:
    """PNG of `sound`, time to the right and frequency upwards, with a line at every join.

    Args:
        sound: float32 [N] in [-1, 1].
        joins: samples at which a piece of the stream began.
    """
    padded = np.pad(sound, FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP] * np.hanning(FFT)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)).T[::-1] + 1e-6)
    shade = np.clip(1 + (level - level.max()) / RANGE_DB, 0, 1) * (len(_PALETTE) - 1)
    channels = [np.interp(shade, range(len(_PALETTE)), _PALETTE[:, c]) for c in range(3)]
    image = np.stack(channels, axis=-1).astype(np.uint8).repeat(SCALE, axis=1)
    for join in joins:
        image[::2, min(join * SCALE // HOP, image.shape[1] - 1)] = _JOIN
    return png(image)


def png(image: NDArray[np.uint8]) -> bytes:
    """A PNG file of `image` [height, width, 3] (RFC 2083: 8-bit RGB, filter 0)."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
