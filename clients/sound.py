"""Sound on the client's side: answers into files, and where speech ends in a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from aqaa.models.errors import AudioError

FRAME_SECONDS = 0.01
SPEECH_FLOOR_DB = -40.0  # quieter than this below the loudest frame is taken for silence


def write_sound(path: Path, wave: NDArray[np.float32], rate: int) -> None:
    """Write mono PCM16 in the format that the file's ending names.

    Raises:
        AudioError: the ending is unknown, or the file cannot be written.
    """
    try:
        soundfile.write(path, np.clip(wave, -1.0, 1.0), rate)
    except (soundfile.LibsndfileError, TypeError, ValueError, OSError) as error:
        raise AudioError(f"cannot write {path}: {error}; name a .wav, .flac or .mp3") from error


def speech_end(wave: NDArray[np.float32], rate: int) -> int:
    """One past the last sample of speech: the last 10 ms frame within 40 dB of the loudest."""
    frame = round(rate * FRAME_SECONDS)
    count = wave.size // frame
    if count == 0:
        return wave.size
    power = np.square(wave[: count * frame].reshape(count, frame), dtype=np.float64).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (SPEECH_FLOOR_DB / 10))
    return int(loud[-1] + 1) * frame if loud.size else wave.size
