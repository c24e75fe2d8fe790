"""A household's functions, a legal call of one of them, and all that can go wrong on the way."""

from __future__ import annotations

import random

from pydantic_core import from_json
from scripted import AUDIO, CALL_END, CALL_START, END, EOT, START, call, group, woven

from aqaa.server.dialogue.tools import Tool

TIMER = Tool(
    "set_timer",
    "Start a timer.",
    {
        "type": "object",
        "properties": {
            "minutes": {"type": "integer"},
            "seconds": {"type": "integer"},
            "label": {"type": "string"},
        },
        "required": ["minutes"],
        "additionalProperties": False,
    },
)
LIGHT = Tool(
    "set_light",
    "Turn a light on or off.",
    {
        "type": "object",
        "properties": {
            "room": {"type": "string", "enum": ["kitchen", "hall"]},
            "on": {"type": "boolean"},
        },
        "required": ["room", "on"],
    },
)
HOUSEHOLD = (TIMER, LIGHT)
LEGAL = (
    '{"name":"set_timer","arguments":{"minutes":5}}',
    '{"name":"set_timer","arguments":{"minutes":5,"label":"the eggs"}}',
    '{"name":"set_light","arguments":{"room":"hall","on":true}}',
)
STRANGE_IDS = (1, 4, 0, 7, CALL_START, CALL_END, START, END, EOT, AUDIO + 17, *group(3))


def is_legal(text: str) -> bool:
    """Whether this is a whole call of the household, told without the code under test."""
    try:
        whole = from_json(text, allow_inf_nan=False)
    except ValueError:
        return False
    if not isinstance(whole, dict) or set(whole) != {"name", "arguments"}:
        return False
    arguments = whole["arguments"]
    if not isinstance(arguments, dict):
        return False
    if whole["name"] == "set_timer":
        kinds = {"minutes": int, "seconds": int, "label": str}
        return "minutes" in arguments and all(
            type(value) is kinds.get(name) for name, value in arguments.items()
        )
    return (
        whole["name"] == "set_light"
        and arguments.get("room") in ("kitchen", "hall")
        and type(arguments.get("on")) is bool
    )


def mutated(rng: random.Random) -> list[int]:
    """An answer with a call in which something is wrong, or, now and then, nothing."""
    ids = call(rng.choice(LEGAL))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        ids = _mutate(ids, rng)
    before = woven("One moment.", 3)[:-1] if rng.random() < 0.3 else []
    after = call(rng.choice(LEGAL)) if rng.random() < 0.1 else []
    return [*before, *ids, *after, *([] if rng.random() < 0.1 else [EOT])]


def _mutate(ids: list[int], rng: random.Random) -> list[int]:
    if not ids:
        return ids
    place = rng.randrange(len(ids))
    match rng.randrange(7):
        case 0:  # an id is lost
            return ids[:place] + ids[place + 1 :]
        case 1:  # it stops
            return ids[:place]
        case 2:  # another character
            return [*ids[:place], rng.randrange(32, 127), *ids[place + 1 :]]
        case 3:  # one more
            return [*ids[:place], rng.randrange(32, 127), *ids[place:]]
        case 4:  # an id that has no place in a call
            return [*ids[:place], rng.choice(STRANGE_IDS), *ids[place:]]
        case 5:  # a part comes twice
            end = rng.randrange(place, len(ids)) + 1
            return ids[:end] + ids[place:end] + ids[end:]
        case _:  # sound amid the call
            return [*ids[:place], *group(rng.randrange(900)), *ids[place:]]
