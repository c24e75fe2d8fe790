"""How people order coffee: an opening, the drink among what qualifies it, milk and sugar behind."""

from __future__ import annotations

import random

from aqaa.recipe.domain.grammar import draw
from aqaa.recipe.domain.tools import Value
from aqaa.recipe.domain.values import Said, read, values

QUALIFIERS = {"size": "size", "roast": "roast", "numberOfShots": "shots"}  # argument -> values
AFTER = {"milkAmount": "milk", "sugarAmount": "sugar"}
CHANCE = 0.45  # of each of these
BARE = 0.45  # chance that milk or sugar stands without an amount
LATE = 0.12  # chance that a qualifier follows the drink ("a latte, small")


def coffee_order(rng: random.Random, without: str = "") -> Said:
    """An order; the argument `without` is surely not in it."""
    found: dict[str, Value] = {"coffeeDrink": rng.choice(values()["drink"])}
    before: list[str] = []
    late: list[str] = []
    for name, kind in QUALIFIERS.items():
        if name != without and rng.random() < CHANCE:
            found[name] = rng.choice(values()[kind])
            (late if rng.random() < LATE else before).append(str(found[name]))
    rng.shuffle(before)
    drink = " ".join([*before, str(found["coffeeDrink"])])
    opening = draw(rng.choice(read("coffee")["opening"]), rng)
    article = rng.choice([_article(drink), "one", _article(drink)])
    words = f"{opening} {'' if not opening and rng.random() < 0.5 else article} {drink}"
    for place, one in enumerate(late):
        words += (", " if place == 0 or rng.random() < 0.5 else " ") + one
    extras = []
    for name, kind in AFTER.items():
        if name != without and rng.random() < CHANCE:
            found[name] = _amount(rng.choice(values()[kind]), rng)
            extras.append(str(found[name]))
    rng.shuffle(extras)
    if extras:
        words += f"{rng.choice(['', ',', ''])} {rng.choice(read('coffee')['with'])} "
        words += rng.choice((" and ", " and ", " and with ", ", ")).join(extras)
    return Said(" ".join(words.split()), tuple(found.items()))


def _amount(what: str, rng: random.Random) -> str:
    return what if rng.random() < BARE else f"{rng.choice(values()['amount'])} {what}"


def _article(words: str) -> str:
    return "an" if words[0] in "aei" else "a"
