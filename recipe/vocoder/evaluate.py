"""How good the vocoder is: the table for the log. Whisper tiny.en reads, DNSMOS rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from rich.progress import track

from aqaa.models.bundle import VOCODER_RATE
from aqaa.recipe.evaluate.judges import Listener, mean_pitch, quality, word_errors
from aqaa.recipe.speech.voices import Wave


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    system: str
    wer: float  # percent
    mos: float  # DNSMOS overall
    hertz: float  # mean f0 of voiced frames
    factor: float  # cpu seconds a second of sound, one thread; 0 for recordings


def row(system: str, items: Iterable[tuple[str, Callable[[], Wave]]], listener: Listener) -> Row:
    """Judge `items`: what should be heard, and what makes the sound of it (22 050 Hz)."""
    wrong = words = 0
    scores, pitches, spent, seconds = [], [], 0.0, 0.0
    for text, make in track(list(items), system):
        begin = time.process_time()
        wave = make()
        spent += time.process_time() - begin
        seconds += len(wave) / VOCODER_RATE
        errors, count = word_errors(text, listener.hear(wave))
        wrong += errors
        words += count
        scores.append(quality(wave, VOCODER_RATE))
        pitches.append(mean_pitch(wave))
    return Row(
        system,
        100 * wrong / words,
        float(np.mean(scores)),
        float(np.nanmean(pitches)),
        spent / seconds,
    )


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = ["| system | WER % | DNSMOS | mean f0 Hz | real-time factor |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.system} | {r.wer:.1f} | {r.mos:.2f} | {r.hertz:.0f} | {r.factor:.3f} |" for r in rows
    ]
    return "\n".join(lines)
