"""What a tool gives back, in the shapes that tools have, and what nano says of it.

Nano says what was done in the words of the call, and what was found out in those of the result.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from aqaa.recipe.domain.grammar import sentence
from aqaa.recipe.domain.numbers import number_words
from aqaa.recipe.domain.tools import Call, Value
from aqaa.recipe.domain.values import read, values

DONE = ('{"ok":true}', "ok", '{"status":"done"}', "done", "success", "{}", '{"result":"ok"}')
FAILED = ('{"error":"failed"}', "error", '{"ok":false}', '{"status":"error"}')
FAILURE = "Sorry, that did not work."
FAILURES = 0.05  # share of results
FORECASTS = 3  # of each place and day: what is rendered of them; more could not all be spoken
COLDEST, WARMEST = -10, 35  # degrees


@dataclass(frozen=True)
class Reply:
    """A tool's result, as text, and the spoken answer."""

    result: str
    answer: str


def draw_reply(call: Call, rng: random.Random) -> Reply:
    """A result of `call` and what is said of it."""
    if rng.random() < FAILURES:
        return Reply(rng.choice(FAILED), FAILURE)
    if call.name == "get_time":
        return _time(rng.randrange(24), rng.randrange(60), rng)
    if call.name == "get_weather":
        given = dict(call.arguments)
        place, day = str(given.get("place", "")), str(given.get("day", ""))
        return _weather(place, day, rng.randrange(FORECASTS), rng)
    return Reply(rng.choice(DONE), done(call))


def done(call: Call) -> str:
    """What is said when `call` was obeyed."""
    given = dict(call.arguments)
    match call.name:
        case "set_timer":
            return f"The timer is set for {duration_words(given)}."
        case "cancel_timer":
            return "The timer is cancelled."
        case "set_light":
            return _light(given)
        case "set_volume":
            level = given["level"]
            if isinstance(level, int):
                return f"The volume is {number_words(level)} percent."
            return "It is louder now." if level == "up" else "It is quieter now."
        case "play_music":
            return f"Here is some {given.get('kind', '')} music.".replace("  ", " ")
        case "add_to_list":
            item = str(given["item"])
            return sentence(f"{item} {'are' if item.endswith('s') else 'is'} on the list")
        case "lock_door":
            return f"The {given.get('door', 'door')} is locked."
        case "order_coffee":
            what = " ".join(str(given[n]) for n in ("size", "coffeeDrink") if n in given)
            return f"{'An' if what[0] in 'aei' else 'A'} {what} is coming."
    raise ValueError(f"nothing is said of {call.name}")


def duration_words(given: dict[str, Value]) -> str:
    """ "one hour and ten minutes"."""
    parts = []
    for unit in ("hours", "minutes", "seconds"):
        if unit in given:
            number = int(given[unit])
            parts.append(f"{number_words(number)} {unit[:-1] if number == 1 else unit}")
    return " and ".join(parts)


def time_words(hour: int, minute: int) -> str:
    """A time of day as people say it: "ten past four"."""
    this, after = (number_words((h - 1) % 12 + 1) for h in (hour, hour + 1))
    if minute == 0:
        return f"{this} o'clock"
    if minute <= 30:
        named = {15: "quarter", 30: "half"}.get(minute, number_words(minute))
        return f"{named} past {this}"
    named = {45: "quarter"}.get(minute, number_words(60 - minute))
    return f"{named} to {after}"


def _time(hour: int, minute: int, rng: random.Random) -> Reply:
    day, short = f"{hour:02}:{minute:02}", f"{(hour - 1) % 12 + 1}:{minute:02}"
    half = "AM" if hour < 12 else "PM"
    shapes = (
        day, f'{{"time":"{day}"}}', f"{short} {half}", f'{{"time":"{short} {half}"}}',
        f"{{\"now\":\"{day}\"}}", f"{short} {half.lower()}", f"2026-11-26T{day}:00",
    )  # fmt: skip
    return Reply(rng.choice(shapes), f"It is {time_words(hour, minute)}.")


def _weather(place: str, day: str, number: int, rng: random.Random) -> Reply:
    fixed = random.Random(f"{place} {day} {number}")
    name = fixed.choice([*values()["weather"]])
    degrees = fixed.randint(COLDEST, WARMEST if name != "snow" else 2)
    sky = rng.choice([name, name, *values()["weather"][name]["also"]])
    shapes: tuple[str, ...] = (
        _json(condition=sky, temperature=degrees),
        _json(temperature=degrees, condition=sky),
        _json(weather=sky, temperature=degrees),
        f"{sky}, {degrees} degrees",
        _json(temp=degrees, sky=sky),
    )
    return Reply(rng.choice(shapes), _weather_answer(place, day, name, degrees))


def _weather_answer(place: str, day: str, name: str, degrees: int) -> str:
    says = values()["weather"][name]["is" if day in ("", "today") else "will"]
    warmth = f"{'minus ' if degrees < 0 else ''}{number_words(abs(degrees))} degrees"
    if abs(degrees) == 1:
        warmth = warmth[:-1]
    when = "" if not day else f" {day}" if day in ("today", "tomorrow") else f" on {day}"
    where = f"in {place} " if place else ""
    return sentence(f"{where}{says}{when}, and {warmth}")


def _light(given: dict[str, Value]) -> str:
    where = f"The {given['room']} light" if "room" in given else "The light"
    if "colour" in given:
        return f"{where} is {given['colour']}."
    if "brightness" in given:
        return f"{where} is at {number_words(int(given['brightness']))} percent."
    return f"{where} is {'on' if given.get('on', True) else 'off'}."


def _json(**fields: Any) -> str:
    return json.dumps(fields, separators=(",", ":"))


def all_answers() -> Iterator[str]:
    """Everything that nano may say to a command, and so must have heard its teacher say.

    What is asked back and what was done come first, then times and the weather in a fixed random
    order, so that any beginning of it is what is said most.
    """
    yield from _fixed_answers()
    found = [
        f"It is {time_words(hour, minute)}." for hour, minute in product(range(1, 13), range(60))
    ]
    known = values()
    for place, day, number in product(["", *known["place"]], ["", *known["day"]], range(FORECASTS)):
        found.append(_weather(place, day, number, random.Random(0)).answer)
    random.Random(3).shuffle(found)
    yield from found


def _fixed_answers() -> Iterator[str]:
    """What is said but for times and weather, the tools with the fewest answers first."""
    known = values()
    yield FAILURE
    yield from (part["asks"] for part in (*read("household").values(),) if "asks" in part)
    yield from (part["asks"] for part in read("coffee")["missing"].values())
    for name in ("cancel_timer", "play_music", "lock_door"):
        yield done(Call(name))
    for level in ("up", "down", *range(10, 101, 10)):
        yield done(Call("set_volume", (("level", level),)))
    for drink in known["drink"]:
        yield done(Call("order_coffee", (("coffeeDrink", drink),)))
        for size in known["size"]:
            yield done(Call("order_coffee", (("coffeeDrink", drink), ("size", size))))
    for name, tool in (("door", "lock_door"), ("kind", "play_music"), ("item", "add_to_list")):
        for value in known[name]:
            yield done(Call(tool, ((name, value),)))
    for unit, most in (("minutes", 60), ("seconds", 60), ("hours", 12)):
        for count in [*range(1, most + 1), *([90] if unit == "seconds" else [])]:
            yield done(Call("set_timer", ((unit, count),)))
    for hours, minutes in product(range(1, 4), range(5, 60, 5)):
        yield done(Call("set_timer", (("hours", hours), ("minutes", minutes))))
    for room in ["", *known["room"]]:
        where = (("room", room),) if room else ()
        changes: list[tuple[str, Value]] = [("on", True), ("on", False)]
        changes += [("colour", colour) for colour in known["colour"]]
        changes += [("brightness", percent) for percent in range(10, 101, 10)]
        for change in changes:
            yield done(Call("set_light", (*where, change)))
