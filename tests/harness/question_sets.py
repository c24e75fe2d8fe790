"""nano's example questions in the formats of other people's harnesses.

Sounds are mono PCM16 at the wire's 24 kHz.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml
from recorded_questions import Sound, hesitating, questions

from aqaa.clients.client import WIRE_RATE
from aqaa.clients.replay import INPUT
from aqaa.clients.sound import speech_end, write_sound
from aqaa.models.bundle import nano_path

ADAPTER = "voicebench_realtime:RealtimeAdapter"
PAUSES = 2  # in a question of somebody who hesitates
CUT_IN_SECONDS = 0.9  # after the answer begins
LONGEST_WORD_GAP = 0.6  # seconds of silence within an answer
# Big Bench Audio's runner sends 16,000 samples a second and never says so, its own server's rate.
BBA_RATE = 16_000  # Hz
BBA_SPEED = WIRE_RATE / BBA_RATE
BBA_SET = "aqaa/nano-examples"
BBA_REVISION = "0" * 40  # the hub's client takes a whole commit id from its cache unasked
# The one of its four categories that nano has questions for: the answer is a whole number.
NUMBERS = {"2-minus-alpha": 1, "3-times-gongitsune": 12}
CATEGORY = "object_counting"


def by_name() -> dict[str, Sound]:
    """Each question with nothing after its last sound."""
    names = sorted(file.stem for file in (nano_path() / "examples").glob("*.flac"))
    waves = zip(names, questions(), strict=True)
    return {name: wave[: speech_end(wave, WIRE_RATE)] for name, wave in waves}


def texts() -> dict[str, str]:
    """What is asked in each."""
    listed = json.loads((nano_path() / "examples" / "examples.json").read_text("utf-8"))
    return {Path(one["file"]).stem: one["text"] for one in listed}


def write_voicebench(folder: Path) -> Path:
    """Into a story a question, when it is told again a noise; then all others, one after another.

    The story comes first, for after five questions nano tells none that is long enough.
    Returns the scenario's file. What is heard of the assistant is one speech until it is silent for
    longer than between two of its words, so that a pause is not taken for a stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in by_name().items():
        write_sound(folder / f"{name}.wav", wave, WIRE_RATE)

    def asked(name: str, **more: Any) -> dict[str, Any]:
        turn = {"id": name, "audio": {"file": f"{name}.wav"}, "text": texts()[name]}
        return turn | {"start": {"after": "agent_speech_end", "delay_ms": 500}} | more

    cut_in = {"after": "agent_speech_start", "delay_ms": 1000 * CUT_IN_SECONDS}
    *others, story = [asked(name) for name in sorted(texts())]
    story["start"] = {"after": "session_start", "delay_ms": 500}
    barge_in = asked("1-capital-joe_lively", id="into-the-story", start=cut_in, expect="stop")
    again = asked("6-story-kokoro_mix3", id="story-again")
    noise = {
        "id": "noise",
        "audio": {"synth": "noise", "duration_ms": 200, "level_db": -30},
        "start": cut_in,
        "expect": "ignore",
    }
    scenario = {
        "name": "nano-examples",
        "sample_rate": WIRE_RATE,
        "vad": {"agent": {"min_silence_ms": 1000 * LONGEST_WORD_GAP}},
        "adapter": {"type": ADAPTER},
        "turns": [story, barge_in, again, noise, *others],
    }
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump(scenario, sort_keys=False), encoding="utf-8")
    return path


def write_big_bench_audio(folder: Path) -> tuple[Path, Path]:
    """The questions that ask for a number, plain and hesitating: manifest, and the hub's cache.

    The files are at `WIRE_RATE` and their headers say `BBA_RATE`: the runner then sends them as
    they are, and in real time with a speed of `BBA_SPEED`.
    """
    hub = folder / "hub"
    kept = hub / f"datasets--{BBA_SET.replace('/', '--')}" / "snapshots" / BBA_REVISION
    kept.mkdir(parents=True, exist_ok=True)
    items = []
    waves = by_name()
    for name, number in NUMBERS.items():
        spoken = {"": waves[name], "-hesitating": hesitating(waves[name], PAUSES, random.Random(0))}
        for manner, wave in spoken.items():
            file = f"{name}{manner}.wav"
            soundfile.write(kept / file, wave, BBA_RATE)
            items.append(
                {
                    "id": len(items),
                    "category": CATEGORY,
                    "official_answer": str(number),
                    "file_name": file,
                }
            )
    manifest = folder / "manifest.json"
    subset = {
        "schema": "big-bench-audio-subset/1",
        "name": "nano-examples",
        "dataset": BBA_SET,
        "revision": BBA_REVISION,
        "items": items,
    }
    manifest.write_text(json.dumps(subset, indent=1), encoding="utf-8")
    return manifest, hub


@dataclass(frozen=True)
class Clip:
    """What is said in an input.wav.

    Attributes:
        wave: all of it, mono float32 at `WIRE_RATE`.
        question_end: seconds.
        cut_in: seconds at which the user speaks into the answer, if he does.
    """

    wave: Sound
    question_end: float
    cut_in: float | None = None


def clips() -> Mapping[str, Clip]:
    """One clip of each of three tasks, by Full-Duplex-Bench's folders."""
    waves = by_name()
    wait, story_time = _silence(6), _silence(3)
    plain, story = waves["1-capital-joe_lively"], waves["6-story-kokoro_mix3"]
    slow = hesitating(waves["4-month_before-kumo"], PAUSES, random.Random(0))
    cut_in = (story.size + story_time.size) / WIRE_RATE
    return {
        "smooth_turn_taking/1": Clip(_joined(plain, wait), plain.size / WIRE_RATE),
        "pause_handling/1": Clip(_joined(slow, wait), slow.size / WIRE_RATE),
        "user_interruption/1": Clip(
            _joined(story, story_time, plain, wait), story.size / WIRE_RATE, cut_in
        ),
    }


def write_clips(folder: Path) -> None:
    """Each of `clips` as FOLDER/TASK/NUMBER/input.wav."""
    for name, clip in clips().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_sound(folder / name / INPUT, clip.wave, WIRE_RATE)


def _silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * WIRE_RATE), np.float32)


def _joined(*waves: Sound) -> Sound:
    return np.concatenate(waves)
