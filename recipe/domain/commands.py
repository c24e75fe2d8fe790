"""What people tell the household's tools to do: the words, the call, and what may be missing.

All is drawn from the grammars in `grammars/`: `draw_commands` gives as many as are asked for,
the same for a seed. No two have the same words.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from aqaa.recipe.domain.asking import dressed
from aqaa.recipe.domain.coffee import coffee_order
from aqaa.recipe.domain.grammar import draw, sentence
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.domain.tools import TOOLS, Call, Value
from aqaa.recipe.domain.values import Arguments, Said, duration, percent, read, values
from aqaa.recipe.domain.values import where_and_when as place_and_day

SHARES = {
    "order_coffee": 30, "set_timer": 14, "cancel_timer": 3, "get_time": 4, "get_weather": 12,
    "set_light": 13, "set_volume": 6, "play_music": 6, "add_to_list": 9, "lock_door": 3,
}  # fmt: skip
INCOMPLETE = 0.12  # share of commands that lack something
PLAIN = 0.35  # share of commands that are said with nothing about them
NEEDED = {  # what a command may lack
    "set_timer": "duration", "get_weather": "place", "set_light": "room", "set_volume": "level",
    "play_music": "kind", "add_to_list": "item", "lock_door": "door",
}  # fmt: skip
_W = str.split
ASKING = frozenset(_W("can could may would will what what's how how's is does do should"))
# What is asked for whatever the declaration says: a call without it could do nothing.
UP, DOWN = {"up", "louder", "quiet"}, {"down", "quieter", "softer", "loud"}
ALWAYS = frozenset({"duration", "level", "item", "coffeeDrink"})


@dataclass(frozen=True)
class Missing:
    """What a command lacks: asked for in a short question if the declared tool requires it.

    Attributes:
        parameter: its name.
        always: it is asked for in any case.
        asks: nano's question.
        reply: what the user says then.
        call: what is called after the reply.
    """

    parameter: str
    always: bool
    asks: str
    reply: str
    call: Call


@dataclass(frozen=True)
class Command:
    """What is said, and the call that it means; with `missing`, what is known so far."""

    said: str
    call: Call
    missing: Missing | None = None


def draw_commands(count: int, seed: int = 0) -> list[Command]:
    """`count` commands of different words, of every tool, in a random order."""
    rng = random.Random(f"commands {seed}")
    found: dict[str, Command] = {}
    while len(found) < count:
        (name,) = rng.choices([*SHARES], [*SHARES.values()])
        command = _incomplete(name, rng) if rng.random() < INCOMPLETE else _whole(name, rng)
        if command is not None:
            found.setdefault(normalise(command.said), command)
    return list(found.values())


def _whole(name: str, rng: random.Random) -> Command:
    if name == "order_coffee":
        said = coffee_order(rng)
    else:
        said = _fill(name, _line(name, "lines", rng), rng)
    return Command(_aloud(said.words, rng), _call(name, said.arguments))


def _incomplete(name: str, rng: random.Random) -> Command | None:
    """A command that lacks something; None of a tool that needs nothing."""
    if name == "order_coffee":
        return _incomplete_coffee(rng)
    if name not in NEEDED:
        return None
    parameter = NEEDED[name]
    first = _fill(name, _line(name, "without", rng), rng)
    then = _fill(name, _line(name, "reply", rng), rng)
    missing = Missing(
        parameter,
        parameter in ALWAYS,
        read("household")[name]["asks"],
        _aloud(then.words, rng, command=False),
        _call(name, _joined(first.arguments, then.arguments)),
    )
    return Command(_aloud(first.words, rng), _call(name, first.arguments), missing)


def _incomplete_coffee(rng: random.Random) -> Command:
    parameter = rng.choice(["size", "size", "roast", "coffeeDrink"])
    grammar = read("coffee")["missing"]
    if parameter == "coffeeDrink":
        first, then = Said(draw(rng.choice(grammar["drink"]["lines"]), rng)), coffee_order(rng)
        asks, reply = grammar["drink"]["asks"], then.words
    else:
        first = coffee_order(rng, without=parameter)
        value = rng.choice(values()[parameter])
        then = Said("", ((parameter, value),))
        asks = grammar[parameter]["asks"]
        reply = draw(
            rng.choice(grammar[parameter]["reply"]).replace(f"{{{parameter}}}", value), rng
        )
    whole = _call("order_coffee", _joined(first.arguments, then.arguments))
    missing = Missing(
        parameter, parameter in ALWAYS, asks, _aloud(reply, rng, command=False), whole
    )
    return Command(_aloud(first.words, rng), _call("order_coffee", first.arguments), missing)


def _line(name: str, part: str, rng: random.Random) -> str:
    line: str = rng.choice(read("household")[name][part])
    return line


def _fill(name: str, line: str, rng: random.Random) -> Said:
    """One sentence of a grammar line with its values, and the arguments that it means."""
    words = draw(line, rng)
    arguments: dict[str, Value] = {}
    for slot in re.findall(r"{(\w+)}", words):
        value = _value(slot, rng)
        words = words.replace(f"{{{slot}}}", value.words)
        arguments.update(dict(value.arguments))
    arguments |= _implied(name, line, words)
    return Said(words, tuple(arguments.items()))


def _value(slot: str, rng: random.Random) -> Said:
    match slot:
        case "duration":
            return duration(rng)
        case "duration_as_adjective":
            return duration(rng, adjective=True)
        case "percent":
            return percent(rng, "percent")
        case "where_and_when":
            return place_and_day(rng)
    value = rng.choice(values()[slot])
    return Said(value, ((slot, value),))


def _implied(name: str, line: str, words: str) -> dict[str, Value]:
    """Arguments that verbs and particles say."""
    said = {word.strip(",") for word in words.split()}
    if "{percent}" in line or "{colour}" in line:
        return {}
    if name == "set_light" and said & {"on", "off"}:
        return {"on": "off" not in said}
    if name == "set_volume" and said & (UP | DOWN):
        return {"level": "up" if said & UP else "down"}
    return {}


def _call(name: str, arguments: Arguments) -> Call:
    """A call with its arguments under their parameters' names, in the declaration's order."""
    given = dict(arguments)
    if "percent" in given:
        given["brightness" if name == "set_light" else "level"] = given.pop("percent")
    return Call(name, tuple((n, given[n]) for n, _ in TOOLS[name].parameters if n in given))


def _joined(first: Arguments, then: Arguments) -> Arguments:
    return tuple((dict(first) | dict(then)).items())


def _aloud(words: str, rng: random.Random, command: bool = True) -> str:
    """The words as a sentence, mostly as people say it."""
    asks = words.split()[0].strip(",").lower() in ASKING
    end = "?" if asks else "."
    if rng.random() < PLAIN or (not command and rng.random() < PLAIN):
        return sentence(words + end)
    return dressed(words, end, rng)
