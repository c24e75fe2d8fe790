"""Recorded questions that ship with the bundle: what to ask it first, in several voices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import soundfile

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.recipe.decoder.clips import trim
from aqaa.recipe.evaluate.report import Report
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear

COUNT = 8


def choose(answers: Sequence[dict[str, Any]], count: int = COUNT) -> list[dict[str, Any]]:
    """`count` plain first questions, answered right by ear; new voices and intents first."""
    able = [
        one
        for one in answers
        if one["right"] and one["first"] and one["condition"] == "plain" and one["words"]
    ]
    chosen: list[dict[str, Any]] = []
    while able and len(chosen) < count:
        voices = [one["voice"] for one in chosen]
        intents = [one["intent"] for one in chosen]
        best = min(able, key=lambda o: (voices.count(o["voice"]), intents.count(o["intent"])))
        chosen.append(best)
        able.remove(best)
    return chosen


def write_examples(report: Report, folder: Path) -> None:
    """Writes FLAC files (16 kHz) and `examples.json`: file, text, words of a right answer."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.flac"):
        old.unlink()
    rows = []
    for number, one in enumerate(choose(report.answers), 1):
        name = f"{number}-{one['intent']}-{one['voice']}.flac"
        question = trim(hear(Utterance(one["asked"], one["voice"])), keep=0.1)
        soundfile.write(folder / name, question, TOKENIZER_RATE)
        rows.append({"file": name, "text": one["asked"], "words": one["words"]})
    (folder / "examples.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
