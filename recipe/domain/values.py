"""The values that the household's commands take, each with how it is said."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from aqaa.recipe.domain.grammar import draw
from aqaa.recipe.domain.numbers import number_words
from aqaa.recipe.domain.tools import Value

GRAMMARS = Path(__file__).with_name("grammars")
Arguments = tuple[tuple[str, Value], ...]


def values() -> dict[str, Any]:
    """What `values.yaml` holds."""
    return read("values")


@functools.cache
def read(name: str) -> dict[str, Any]:
    """One file of the folder of grammars."""
    text = GRAMMARS.joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@dataclass(frozen=True)
class Said:
    """Words, and the arguments that they mean."""

    words: str
    arguments: Arguments = ()


def duration(rng: random.Random, adjective: bool = False) -> Said:
    """A time that a timer runs; as an adjective "five minute"."""
    unit = rng.choices(("minute", "second", "hour"), (6, 2, 1))[0]
    if unit == "minute":
        number = rng.choice([rng.randint(1, 60), rng.randint(1, 20), 5 * rng.randint(1, 12)])
    elif unit == "second":
        number = rng.choice([5 * rng.randint(1, 12), rng.randint(2, 60), 90])
    else:
        number = rng.randint(1, 12)
    words = f"{number_words(number)} {unit}"
    if adjective:
        return Said(words, ((f"{unit}s", number),))
    special = rng.random()
    if special < 0.06:
        return Said(rng.choice(["half an hour", "a half hour"]), (("minutes", 30),))
    if special < 0.09:
        return Said("a quarter of an hour", (("minutes", 15),))
    if special < 0.13:
        return Said("an hour and a half", (("hours", 1), ("minutes", 30)))
    if special < 0.22:
        hours, minutes = rng.randint(1, 3), 5 * rng.randint(1, 11)
        first = (
            rng.choice(["an hour", "one hour"]) if hours == 1 else f"{number_words(hours)} hours"
        )
        return Said(
            f"{first} and {number_words(minutes)} minutes",
            (("hours", hours), ("minutes", minutes)),
        )
    if number == 1:
        words = rng.choice([words, f"{'an' if unit == 'hour' else 'a'} {unit}"])
    else:
        words += "s"
    return Said(words, ((f"{unit}s", number),))


def percent(rng: random.Random, name: str) -> Said:
    """A percentage in tens, for the argument `name`."""
    number = 10 * rng.randint(1, 10)
    words = f"{number_words(number)} percent"
    if number == 100:
        words = rng.choice(["one hundred percent", "a hundred percent"])
    elif number == 50:
        words = rng.choice([words, "half"])
    return Said(words, ((name, number),))


def where_and_when(rng: random.Random) -> Said:
    """A place, a day, or both: "in Paris", "for tomorrow in Rome"."""
    place, day = rng.choice(values()["place"]), rng.choice(values()["day"])
    on = day if day in ("today", "tomorrow") else draw(f"[on|this|next] {day}", rng)
    form = rng.random()
    if form < 0.4:
        return Said(f"in {place}", (("place", place),))
    if form < 0.6:
        return Said(on, (("day", day),))
    words = rng.choice([f"in {place} {on}", f"{on} in {place}"])
    return Said(words, (("place", place), ("day", day)))
