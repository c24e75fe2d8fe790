"""The conversations of the evaluation: held-out phrasings over the whole domain, a fixed order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from aqaa.recipe.domain.load import Control, Domain, Fact, Style

HELD_OUT = Path(__file__).with_name("held_out.yaml")
PEOPLE = HELD_OUT.with_name("people.yaml")
STYLED = 6  # conversations of each voice control


@dataclass(frozen=True)
class Turn:
    """One thing said, and what makes its answer right."""

    intent: str
    said: str
    answer: str
    right: tuple[tuple[str, ...], ...]
    style: Style = "plain"
    other_voice: bool = False


@dataclass(frozen=True)
class Conversation:
    """Turns in order."""

    turns: tuple[Turn, ...]


def held_out_questions(domain: Domain, path: Path = HELD_OUT) -> list[Conversation]:
    """Every fact and dialogue once, every control `STYLED` times, shuffled by a fixed seed.

    Where an intent has several held-out phrasings, its facts take them in turn; a phrase without
    slots (a refusal, say) is asked once each.
    """
    phrases: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    taken: dict[str, int] = {}

    def turn(fact: Fact) -> Turn:
        templates = phrases["ask"][fact.intent]
        count = taken.get(fact.intent, 0)
        taken[fact.intent] = count + 1
        said = fact.phrase(templates[count % len(templates)])
        return Turn(fact.intent, said, fact.answer, fact.right)

    talks = []
    alone = {fact.intent for fact in domain.facts if not fact.slots}
    for fact in domain.facts:
        for _ in phrases["ask"][fact.intent] if fact.intent in alone else [None]:
            talks.append(Conversation((turn(fact),)))
    for dialogue in domain.dialogues:
        talks.append(Conversation(tuple(turn(fact) for fact in dialogue.turns)))
    rng = random.Random(2)
    for intent, templates in phrases["follow"].items():
        family = [fact for fact in domain.facts if fact.intent == intent]
        for template in templates:
            first, second = rng.sample(family, 2)
            then = Turn(intent, second.phrase(template), second.answer, second.right)
            talks.append(Conversation((turn(first), then)))
    for control in domain.controls:
        for place in range(STYLED):
            templates = phrases["control"][control.name]
            said = templates[place % len(templates)]
            fact = rng.choice([f for f in domain.facts if may_follow(control, f)])
            talks.append(Conversation((turn(fact), _controlled(control, fact, said))))
    rng.shuffle(talks)
    return talks


def as_people_open(talks: Sequence[Conversation], path: Path = PEOPLE) -> list[Conversation]:
    """`talks`, each first question within an opening of people's; the openings take turns."""
    openings: list[str] = yaml.safe_load(path.read_text(encoding="utf-8"))["openings"]
    opened = []
    for number, talk in enumerate(talks):
        first, *others = talk.turns
        asked = first.said if first.said.startswith("I ") else _lower_first(first.said)
        said = openings[number % len(openings)].format(q=asked)
        opened.append(Conversation((replace(first, said=said), *others)))
    return opened


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def may_follow(control: Control, fact: Fact) -> bool:
    """Whether `control` is asked for after `fact`."""
    return not control.after or fact.intent in control.after


def _controlled(control: Control, fact: Fact, said: str) -> Turn:
    return Turn(control.name, said, fact.answer, fact.right, control.style, control.other_voice)
