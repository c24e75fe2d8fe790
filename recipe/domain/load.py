"""Reads the domain: intents with their phrasings, the one answer to each, and what makes it right.

The YAML files beside this module hold the phrasings to *train* on. Those of the evaluation are
elsewhere (`aqaa.recipe.evaluate`), and nothing here reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml

from aqaa.recipe.domain.asking import variants
from aqaa.recipe.domain.numbers import number_words

Style = Literal["plain", "slow", "fast", "happy", "sad"]
STYLES: tuple[Style, ...] = ("plain", "slow", "fast", "happy", "sad")
VARIANTS = 2  # ways in which people say a phrasing, beside itself
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Fact:
    """One thing to ask, the slots already filled in.

    `ask` are the phrasings as they are written down, `follow` those that only make sense after
    another question, `said` what people make of `ask` (`aqaa.recipe.domain.asking`). `right` are
    groups of words that must be heard in the answer: every group, any word of it.
    """

    intent: str
    ask: tuple[str, ...]
    follow: tuple[str, ...]
    answer: str
    right: tuple[tuple[str, ...], ...]
    slots: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()

    def phrase(self, template: str) -> str:
        """`template` with this fact's slots in it."""
        return fill(template, dict(self.slots))


@dataclass(frozen=True)
class Dialogue:
    """Turns that belong together, in order."""

    name: str
    turns: tuple[Fact, ...]


@dataclass(frozen=True)
class Control:
    """What is said after an answer to have it said again, in a style or in the other voice.

    `after` are the intents after whose answers an evaluation asks for it; empty: all.
    """

    name: str
    ask: tuple[str, ...]
    style: Style
    other_voice: bool
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Domain:
    """Everything that nano can be asked, with the training phrasings.

    `outside` is said to it as well, and refused, whatever is declared.
    """

    facts: tuple[Fact, ...]
    dialogues: tuple[Dialogue, ...]
    controls: tuple[Control, ...]
    outside: tuple[str, ...] = ()

    def answers(self) -> tuple[str, ...]:
        """Every different answer text, in a fixed order."""
        turns = [turn.answer for dialogue in self.dialogues for turn in dialogue.turns]
        return tuple(dict.fromkeys([fact.answer for fact in self.facts] + turns))

    def questions(self) -> tuple[str, ...]:
        """Every different thing that a user says in training, in a fixed order."""
        said: dict[str, None] = {}
        for fact in self.facts:
            said.update(dict.fromkeys(fact.ask + fact.follow))
        for dialogue in self.dialogues:
            for turn in dialogue.turns:
                said.update(dict.fromkeys(turn.ask))
        for control in self.controls:
            said.update(dict.fromkeys(control.ask))
        return tuple(said)

    def variants(self) -> tuple[str, ...]:
        """What people make of the questions of facts and dialogues, in a fixed order."""
        turns = [turn for dialogue in self.dialogues for turn in dialogue.turns]
        said = dict.fromkeys(said for fact in (*self.facts, *turns) for said in fact.said)
        return tuple(said)

    def alone(self) -> frozenset[str]:
        """The questions that stand in no table, so that no other row repeats their words."""
        turns = [turn for dialogue in self.dialogues for turn in dialogue.turns]
        said = {
            ask
            for fact in (*self.facts, *turns)
            for ask in fact.ask
            if not any(value.split("|")[0].lower() in ask.lower() for _, value in fact.slots)
        }
        return frozenset(said.union(*(control.ask for control in self.controls)))


def fill(template: str, slots: dict[str, str]) -> str:
    """`template` with its `{slot}`s replaced (a value's first spelling), its first letter upper."""
    text = template.format(**{name: value.split("|")[0] for name, value in slots.items()})
    return text[0].upper() + text[1:]


def _facts(entry: dict[str, Any]) -> list[Fact]:
    """The facts of one intent: one for each row of its table."""
    result = []
    for slots in _rows(entry):
        asked = tuple(dict.fromkeys(fill(ask, slots) for ask in entry["ask"]))
        right = tuple(tuple(group.format(**slots).lower().split("|")) for group in entry["right"])
        result.append(
            Fact(
                intent=entry["intent"],
                ask=asked,
                follow=tuple(fill(ask, slots) for ask in entry.get("follow", [])),
                answer=fill(entry["answer"], slots),
                right=right,
                slots=tuple(slots.items()),
                said=tuple(s for ask in asked for s in variants(ask, VARIANTS)),
            )
        )
    return result


def _rows(entry: dict[str, Any]) -> list[dict[str, str]]:
    if "columns" in entry:
        return [dict(zip(entry["columns"], row, strict=True)) for row in entry["rows"]]
    if "operation" in entry:
        return _sums(entry["operation"], entry["first"], entry["second"])
    return [{}]


def _sums(operation: str, first: list[int], second: list[int]) -> list[dict[str, str]]:
    """Every pair of the two inclusive ranges whose result is not negative, in words."""
    rows = []
    for a, b in product(range(first[0], first[1] + 1), range(second[0], second[1] + 1)):
        result = {"plus": a + b, "minus": a - b, "times": a * b}[operation]
        if result >= 0:
            rows.append(
                {"a": number_words(a), "b": number_words(b), "result": number_words(result)}
            )
    return rows


def _dialogues(entry: dict[str, Any]) -> list[Dialogue]:
    result = []
    for slots in _rows(entry):
        turns = []
        for turn in entry["turns"]:
            asked = [fill(ask, slots) for ask in turn["ask"]]
            (fact,) = _facts(
                {**turn, "ask": asked, "columns": [*slots], "rows": [[*slots.values()]]}
            )
            turns.append(replace(fact, slots=tuple(slots.items())))
        result.append(Dialogue(entry["dialogue"], tuple(turns)))
    return result


def load_domain(folder: Path = HERE) -> Domain:
    """The training domain from the YAML files of `folder`, in the order of their names."""
    facts: list[Fact] = []
    dialogues: list[Dialogue] = []
    controls: list[Control] = []
    outside: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8")):
            if "control" in entry:
                voice = entry.get("voice") == "other"
                style, after = entry.get("style", "plain"), tuple(entry.get("after", []))
                controls.append(Control(entry["control"], tuple(entry["ask"]), style, voice, after))
            elif "outside" in entry:
                outside.extend(entry["outside"])
            elif "dialogue" in entry:
                dialogues.extend(_dialogues(entry))
            else:
                facts.extend(_facts(entry))
    return Domain(tuple(facts), tuple(dialogues), tuple(controls), tuple(outside))
