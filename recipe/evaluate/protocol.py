"""`aqaa eval --url`: any server, asked by voice over the realtime protocol, judged by ability.

A set is a folder of recordings and `rows.jsonl`; a row has what those of StepEval-Audio-360 have,
turns with their sound and one of its nine abilities.

    {"id": "capital-1", "ability": "understanding", "instructions": "",
     "turns": [{"audio": "capital-1.wav", "text": "What is the capital of France?",
                "right": [["paris"]]}]}

`text` is what the recording says. A turn is judged where it has `right` (groups of words: one of
each group must be heard in the answer's sound), or, with a judge model, if it is the row's last.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

import numpy as np
import soundfile
import soxr
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aqaa.clients.client import WIRE_RATE, connect
from aqaa.clients.turn import SpokenAnswer, speak
from aqaa.models.errors import AqaaError, InputError
from aqaa.recipe.domain.numbers import is_right
from aqaa.recipe.evaluate.judges import Listener
from aqaa.recipe.evaluate.report import half_width
from aqaa.recipe.speech.voices import Wave

Ability = Literal[
    "singing", "creativity", "role-play", "logic", "understanding", "voice instructions", "gaming",
    "emotion control", "language",
]  # fmt: skip


class Asked(BaseModel):
    """One recording of a row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: str
    text: str = ""
    right: tuple[tuple[str, ...], ...] = ()


class Row(BaseModel):
    """One conversation of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    ability: Ability
    instructions: str = ""
    turns: Annotated[tuple[Asked, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Verdict:
    """What came of one judged turn; `score` is from 0 to 1."""

    row: str
    ability: str
    asked: str
    transcript: str
    heard: str
    score: float
    heard_after: float | None
    fault: str = ""


@dataclass(frozen=True)
class AbilityScore:
    """Mean score of one ability, and half the width of its 95 % confidence interval."""

    ability: str
    mean: float
    half: float
    n: int


class Judge(Protocol):
    """Gives an answer, as it was heard, a score from 0 to 1."""

    async def score(self, asked: Asked, heard: str, transcript: str) -> float:
        """Of one turn."""


class RuleJudge:
    """Right are the words that the set asks for."""

    async def score(self, asked: Asked, heard: str, transcript: str) -> float:
        """1 if they were heard, else 0."""
        return float(is_right(heard, asked.right))


def read_set(folder: Path) -> list[Row]:
    """The rows of `folder`.

    Raises:
        InputError: no rows, a row of another shape, or a recording that is not there.
    """
    file = folder / "rows.jsonl"
    if not file.is_file():
        raise InputError(f"no rows.jsonl in {folder}: name a folder that holds a set")
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{file}, line {number}: {place}: {first['msg']}") from error
        missing = [turn.audio for turn in row.turns if not (folder / turn.audio).is_file()]
        if missing:
            raise InputError(f"{file}, line {number}: there is no {missing[0]}")
        rows.append(row)
    if not rows:
        raise InputError(f"{file} is empty")
    return rows


async def ask_rows(
    url: str, folder: Path, rows: Sequence[Row], judge: Judge, *, every_last: bool = False
) -> list[Verdict]:
    """Ask every row in a conversation of its own, in real time, and judge its turns.

    Args:
        url: of the server, http or https.
        folder: of the set.
        rows: what to ask.
        judge: of what was heard.
        every_last: judge the last turn of each row, whether or not it has `right`.

    A conversation that fails has scored 0 and says why; the others go on.

    Raises:
        InputError: nothing in the set can be judged.
    """
    if not every_last and not any(turn.right for row in rows for turn in row.turns):
        raise InputError("no turn of the set says what is right: give a judge model")
    listener = Listener()
    verdicts: list[Verdict] = []
    for row in rows:
        judged = [turn for turn in row.turns if turn.right]
        if every_last and row.turns[-1] not in judged:
            judged.append(row.turns[-1])
        answers: dict[Asked, SpokenAnswer] = {}
        fault = ""
        try:
            async with connect(url) as server:
                if row.instructions:
                    await server.update_session(instructions=row.instructions)
                for turn in row.turns:
                    answers[turn] = await speak(server, recording(folder / turn.audio))
        except AqaaError as error:
            fault = str(error)
        for turn in judged:
            answer = answers.get(turn, SpokenAnswer())
            heard = listener.hear(answer.audio, WIRE_RATE) if answer.audio.size else ""
            score = await judge.score(turn, heard, answer.transcript) if heard else 0.0
            verdicts.append(
                Verdict(
                    row.id, row.ability, turn.text, answer.transcript, heard, score,
                    answer.heard_after, fault,
                )
            )  # fmt: skip
    return verdicts


def by_ability(verdicts: Sequence[Verdict]) -> list[AbilityScore]:
    """Means with Wilson's interval, in the abilities' order; then of all."""
    groups: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        groups[verdict.ability].append(verdict.score)
    order = [name for name in get_args(Ability) if name in groups]
    scores = [_score(name, groups[name]) for name in order]
    return [*scores, _score("all", [verdict.score for verdict in verdicts])]


def _score(name: str, values: Sequence[float]) -> AbilityScore:
    mean = float(np.mean(values))
    return AbilityScore(name, mean, half_width(mean, len(values)), len(values))


def as_table(scores: Sequence[AbilityScore]) -> str:
    """A Markdown table."""
    lines = ["| ability | score | n |", "|---|---|---|"]
    lines += [f"| {s.ability} | {s.mean:.1%} ± {s.half:.1%} | {s.n} |" for s in scores]
    return "\n".join(lines)


def as_json(scores: Sequence[AbilityScore], verdicts: Sequence[Verdict]) -> str:
    """Everything, to be read again."""
    found = {"abilities": [asdict(s) for s in scores], "turns": [asdict(v) for v in verdicts]}
    return json.dumps(found, indent=1, ensure_ascii=False)


def plot(scores: Sequence[AbilityScore], path: Path) -> None:
    """Bars with their intervals, to a file whose ending says what kind of picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.5 + 0.4 * len(scores)), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{s.ability} ({s.n})" for s in scores]
    axes.barh(names, [100 * s.mean for s in scores], xerr=[100 * s.half for s in scores])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("score, %")
    figure.savefig(path)


def recording(path: Path) -> Wave:
    """A recording as the wire wants it: mono float32 at `WIRE_RATE`."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = wave.mean(1)
    return np.asarray(soxr.resample(mono, rate, WIRE_RATE), np.float32)
