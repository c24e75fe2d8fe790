"""What whisper's encoder makes of every clip: dense targets, of which little training learns much.

CTC alone says which phonemes were spoken, not where, and a phoneme is all that it says of a frame.
The last encoder states of whisper tiny.en, whose weights come with the recipe's judge, say of every
frame what a listener to thousands of voices makes of it; a tokenizer whose codes can give them back
hears across voices. Only the targets are whisper's: no weight of it enters the bundle.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from aqaa.recipe.speech.batches import Row
from aqaa.recipe.speech.store import RATE, Clip
from aqaa.recipe.speech.whisper import whisper_folder

WIDTH = 96  # principal components of the 384
FRAME = RATE // 25  # samples: two of whisper's states are one target
SAMPLE = 400  # clips that the components are found on
Frames = NDArray[np.float16]


@dataclass(frozen=True)
class Guide:
    """Targets of every clip, float16 [frames at 25 Hz, 96], of a variance of 1 on average."""

    tracks: dict[tuple[str, str, int], Frames]

    def of(self, clip: Clip) -> Frames:
        """The clip's targets."""
        return self.tracks[clip.key]

    def targets(self, rows: Sequence[Row], step: int, delay: int = 0) -> NDArray[np.float32]:
        """Targets of training rows, one every `step` samples, float32 [B, T, 96]; NaN in silence.

        `delay` samples are between a sound and the place where it is asked for.
        """
        out = np.full((len(rows), len(rows[0].clean) // step, WIDTH), np.nan, np.float32)
        for target, row in zip(out, rows, strict=True):
            for placed in row.placed:
                track_ = self.of(placed.clip)
                begin = placed.start + delay
                end = begin + len(placed.clip.pcm) / placed.speed
                first, last = -(-begin // step), min(len(target), int(end) // step)
                middle = (np.arange(first, last) + 0.5) * step - begin
                at = (middle * placed.speed / FRAME).astype(int)
                target[first:last] = track_[np.clip(at, 0, len(track_) - 1)]
        return out


def measure_guide(clips: Sequence[Clip], path: Path, processes: int = 2) -> Guide:
    """The targets of all `clips`; of those in `path` (an .npz file) they are read.

    What the components are is found once: a grown corpus is measured in those of the first, so that
    a network that has begun to give them goes on.
    """
    unique = {clip.key: clip for clip in clips}
    known = _known(path)
    new = [clip for key, clip in unique.items() if key not in known]
    if new:
        mean, basis = _components(list(unique.values()), path)
        measure = functools.partial(_measure, mean=mean, basis=basis)
        waves = [clip.pcm for clip in new]
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            found = track(pool.imap(measure, waves, 16), "listening with whisper", total=len(waves))
            known |= {clip.key: one for clip, one in zip(new, found, strict=True)}
        partial = path.with_suffix(".part.npz")
        partial.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            partial,
            keys=json.dumps(list(known)),
            frames=np.concatenate(list(known.values())),
            lengths=np.array([len(one) for one in known.values()]),
            mean=mean,
            basis=basis,
        )
        partial.replace(path)
    return Guide({key: known[key] for key in unique})


def _known(path: Path) -> dict[tuple[str, str, int], Frames]:
    """What was measured before, by clip."""
    if not path.exists():
        return {}
    with np.load(path) as file:
        tracks = np.split(file["frames"], np.cumsum(file["lengths"])[:-1])
        keys = [(voice, text, length) for voice, text, length in json.loads(str(file["keys"]))]
    return dict(zip(keys, tracks, strict=True))


def _components(clips: Sequence[Clip], path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The mean state, [384], and the components, [384, 96]: those of `path`, or found anew."""
    if path.exists():
        with np.load(path) as file:
            return file["mean"], file["basis"]
    sample = clips[:: max(1, len(clips) // SAMPLE)]
    states = np.concatenate([_states(clip.wave) for clip in sample])
    mean = states.mean(0)
    _, _, axes = np.linalg.svd(states - mean, full_matrices=False)
    spread = ((states - mean) @ axes[:WIDTH].T).std(0)
    return mean, axes[:WIDTH].T / np.sqrt(spread * spread.mean())  # the main count, not alone


def _measure(pcm: NDArray[np.int16], mean: NDArray[Any], basis: NDArray[Any]) -> Frames:
    states = _states(pcm.astype(np.float32) / np.float32(32768))
    return np.asarray((states - mean) @ basis, np.float16)


def _states(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """Whisper's last encoder states of `wave` (16 kHz), averaged in pairs, [frames, 384]."""
    import ctranslate2

    encoder, features = _whisper()
    frames = -(-len(wave) // FRAME)
    padded = np.pad(wave, (0, (frames + 12) * FRAME - len(wave)))  # half a second of silence
    mel = features(padded, padding=0)[None, :, : 4 * (frames + 12)]
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel, np.float32))
    states = np.asarray(encoder.encode(view), np.float32)[0]
    return np.asarray(states[: 2 * frames].reshape(frames, 2, -1).mean(1))


@functools.cache
def _whisper() -> tuple[Any, Any]:
    folder = whisper_folder()
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor

    load = functools.partial(ctranslate2.models.Whisper, device="cpu", intra_threads=1)
    model = load(str(folder), compute_type="int8")
    return model, FeatureExtractor(feature_size=80)
