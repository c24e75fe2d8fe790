"""Turns with tools: what is declared, what is called, and what is said without a tool for it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from aqaa.recipe.domain.commands import Command, Missing
from aqaa.recipe.domain.tools import COFFEE_SHORT, STRANGERS, TOOLS, Call, Tool, shown

DECLARED = 0.85  # chance that the tool that a command needs is declared
ALONE = 0.4  # chance that it is declared alone, as in a machine that does one thing
OTHERS = 0.5  # chance of every other tool elsewhere
SHORT = 0.5  # chance that order_coffee's parameters have their short names
STRANGER = 0.25  # chance of each tool that is not of the household
REQUIRED = 0.3  # chance that a parameter that was given is required
INSTRUCTED = 0.3  # chance that instructions stand before the tools
INSTRUCTIONS = (
    "You are a helpful assistant.",
    "You are nano, a small voice assistant.",
    "Be brief.",
    "Answer in one sentence.",
    "You help people at home.",
    "You are a barista in a coffee shop. Use the tools.",
    "Use a tool where one fits. Otherwise just talk.",
    "You speak with people in their kitchen.",
)


@dataclass(frozen=True)
class Scene:
    """What a session declares, as its prompt shows it, and what is to be done about one command.

    Attributes:
        text: the system's turn.
        call: what is called at once; None if nothing is.
        missing: what is asked for first.
    """

    text: str
    call: Call | None = None
    missing: Missing | None = None


def scene(command: Command, rng: random.Random) -> Scene:
    """A session in which `command` is given; its tool is not always there."""
    needed = TOOLS[command.call.name]
    others = [tool for tool in TOOLS.values() if tool != needed and rng.random() < OTHERS]
    declared = [*(_any_required(tool, rng) for tool in others), *_strangers(rng)]
    if rng.random() < ALONE:
        declared = []
    names = COFFEE_SHORT if rng.random() < SHORT else {}
    if rng.random() >= DECLARED:
        return Scene(_text(declared, rng))
    asks_back, required = _required(command, rng)
    declared.append(needed.requiring(required).renamed(names))
    if asks_back and command.missing is not None:
        whole = command.missing.call.renamed(names)
        return Scene(_text(declared, rng), whole, command.missing)
    return Scene(_text(declared, rng), command.call.renamed(names))


def at_home(rng: random.Random) -> str:
    """The system's turn of a session in which something else is asked."""
    tools = [tool for tool in TOOLS.values() if rng.random() < OTHERS]
    return _text([*(_any_required(tool, rng) for tool in tools), *_strangers(rng)], rng)


def machine(call: Call, rng: random.Random) -> str:
    """The system's turn of a session with the tool of `call` alone: the shortest with a reply."""
    return _text([_any_required(TOOLS[call.name], rng)], rng)


def _required(command: Command, rng: random.Random) -> tuple[bool, set[str]]:
    """Whether is asked back, and the parameters that the declaration requires for it to be so."""
    given = [name for name, _ in command.call.arguments]
    required = {name for name in given if rng.random() < REQUIRED}
    if command.missing is None:
        return False, required
    if command.missing.always:
        return True, required | {command.missing.parameter}
    if rng.random() < 0.5:
        return True, required | {command.missing.parameter}
    return False, required


def _any_required(tool: Tool, rng: random.Random) -> Tool:
    return tool.requiring([name for name, _ in tool.parameters if rng.random() < REQUIRED])


def _strangers(rng: random.Random) -> list[Tool]:
    return [tool for tool in STRANGERS if rng.random() < STRANGER]


def _text(tools: Sequence[Tool], rng: random.Random) -> str:
    """Tools in a random order, perhaps after instructions."""
    shuffled = rng.sample(list(tools), len(tools))
    parts = [rng.choice(INSTRUCTIONS)] if rng.random() < INSTRUCTED or not tools else []
    return "\n".join([*parts, *([shown(shuffled)] if tools else [])])
