"""Speech on disk: each (text, voice, rate) is synthesised once, by as many processes as asked."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import soundfile
from rich.progress import track

from aqaa.models.errors import AudioError
from aqaa.recipe.speech.voices import VOICES, Wave, synthesise


class Utterance(NamedTuple):
    """What is to be said, who says it, and how fast (1.0 is the voice's own rate)."""

    text: str
    voice: str
    rate: float = 1.0


def work_dir() -> Path:
    """Where the recipe keeps what is large: `$AQAA_NANO_WORK`, else `build/nano` here."""
    return Path(os.environ.get("AQAA_NANO_WORK", "build/nano"))


def cached_path(utterance: Utterance) -> Path:
    """The utterance's WAV file (16 bit, the engine's own rate), whether or not it exists yet.

    The name follows from the voice's settings and the words, so a changed voice is spoken anew.
    """
    voice = VOICES[utterance.voice]
    manner = "|steady" if voice.steady else ""
    key = (
        f"{voice.engine}|{voice.model}|{voice.pitch}|{utterance.rate:.3f}|{utterance.text}{manner}"
    )
    digest = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
    return work_dir() / "speech" / voice.name / digest[:2] / f"{digest}.wav"


def say(utterance: Utterance) -> tuple[Wave, int]:
    """`synthesise`, through the disk. Returns float32 [samples] and its rate in Hz."""
    path = cached_path(utterance)
    if not path.exists():
        wave, rate = synthesise(*utterance)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        soundfile.write(partial, wave, rate, format="WAV", subtype="PCM_16")
        partial.replace(path)  # whole or not at all: an interrupted run leaves no half file
    wave, rate = soundfile.read(path, dtype="float32")
    return wave, int(rate)


def _make(utterance: Utterance) -> float:
    """Seconds made; 0 when it was there already, and for a text that the engine cannot speak."""
    if cached_path(utterance).exists():
        return 0.0
    try:
        wave, rate = say(utterance)
    except AudioError:
        return 0.0
    return len(wave) / rate


def say_all(utterances: Iterable[Utterance], processes: int = 2) -> float:
    """Fill the cache with all of `utterances`; resumable. Returns the seconds of new speech."""
    todo = [u for u in dict.fromkeys(utterances) if not cached_path(u).exists()]
    if not todo:
        return 0.0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        made: Iterator[float] = pool.imap_unordered(_make, todo, chunksize=4)
        return sum(track(made, "speaking", total=len(todo)))
