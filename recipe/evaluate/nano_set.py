"""nano's own questions as a set for `aqaa eval --url`: held-out phrasings in held-out voices."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import soundfile

from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.evaluate.questions import Conversation, held_out_questions
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import RATE, hear
from aqaa.recipe.speech.voices import HELD_OUT

ABILITIES = {  # intent -> ability; all others are understanding
    "plus": "logic", "minus": "logic", "times": "logic", "opposite": "logic", "riddle": "gaming",
    "riddle_right": "gaming", "riddle_wrong": "gaming", "be_pirate": "role-play",
    "be_robot": "role-play", "joke": "creativity", "story": "creativity", "poem": "creativity",
    "language": "language", "slower": "voice instructions", "faster": "voice instructions",
    "repeat": "voice instructions", "other_voice": "voice instructions",
    "happy": "emotion control", "sad": "emotion control",
}  # fmt: skip


def write_set(folder: Path, count: int) -> None:
    """The first `count` conversations of the evaluation, spoken, and their rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, talk in enumerate(held_out_questions(load_domain())[:count]):
        rows.append(_row(folder, number, talk))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")


def _row(folder: Path, number: int, talk: Conversation) -> dict[str, object]:
    turns = []
    for place, turn in enumerate(talk.turns):
        name = f"{number:03}-{place}.flac"
        wave = hear(Utterance(turn.said, HELD_OUT[number % len(HELD_OUT)]))
        soundfile.write(folder / name, wave, RATE)
        turns.append({"audio": name, "text": turn.said, "right": turn.right})
    last = talk.turns[-1].intent
    return {
        "id": f"{number:03}-{last}",
        "ability": ABILITIES.get(last, "understanding"),
        "turns": turns,
    }


def main() -> None:
    """`python -m aqaa.recipe.evaluate.nano_set FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=120)
    arguments = parser.parse_args()
    write_set(arguments.folder, arguments.count)


if __name__ == "__main__":
    main()
