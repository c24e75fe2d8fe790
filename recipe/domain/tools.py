"""The household's tools: what a session declares, how a prompt shows it, how a call is spelt."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["string", "integer", "boolean", "integer or string"]
Value = str | int | bool


@dataclass(frozen=True)
class Tool:
    """One tool: its parameters in their order, by the kind of their JSON values."""

    name: str
    description: str
    parameters: tuple[tuple[str, Kind], ...] = ()
    required: tuple[str, ...] = ()

    def signature(self) -> str:
        """How the prompt shows it: `set_light(room,on?,...)`; what need not be given has a `?`."""
        names = [f"{name}{'' if name in self.required else '?'}" for name, _ in self.parameters]
        return f"{self.name}({','.join(names)})"

    def declaration(self) -> dict[str, Any]:
        """As a Realtime session declares it; chat completions nest the same under `function`."""
        properties = {
            name: {"type": kind.split(" or ") if " or " in kind else kind}
            for name, kind in self.parameters
        }
        schema = {"type": "object", "properties": properties, "required": [*self.required]}
        return {
            "type": "function",
            "name": self.name,
            "description": self.description,
            "parameters": schema | {"additionalProperties": False},
        }

    def requiring(self, required: Collection[str]) -> Tool:
        """The same tool, of which `required` must be given."""
        kept = tuple(name for name, _ in self.parameters if name in required)
        return Tool(self.name, self.description, self.parameters, kept)

    def renamed(self, names: dict[str, str]) -> Tool:
        """The same tool with other names for some parameters."""
        parameters = tuple((names.get(name, name), kind) for name, kind in self.parameters)
        required = tuple(names.get(name, name) for name in self.required)
        return Tool(self.name, self.description, parameters, required)


@dataclass(frozen=True)
class Call:
    """A tool and its arguments."""

    name: str
    arguments: tuple[tuple[str, Value], ...] = ()

    def spelt(self) -> str:
        """What stands between the bundle's call markers: one line of JSON without spaces."""
        body = {"name": self.name, "arguments": dict(self.arguments)}
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False)

    def renamed(self, names: dict[str, str]) -> Call:
        """The same call with other names for some arguments."""
        return Call(self.name, tuple((names.get(n, n), value) for n, value in self.arguments))


# Two customs of naming: short, and that of the benchmark of coffee commands.
COFFEE_SHORT = {
    "coffeeDrink": "drink", "numberOfShots": "shots", "milkAmount": "milk", "sugarAmount": "sugar",
}  # fmt: skip
COFFEE = Tool(
    "order_coffee",
    "Make a coffee drink.",
    (
        ("coffeeDrink", "string"), ("size", "string"), ("roast", "string"),
        ("numberOfShots", "string"), ("milkAmount", "string"), ("sugarAmount", "string"),
    ),
    ("coffeeDrink",),
)  # fmt: skip
TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        COFFEE,
        Tool(
            "set_timer",
            "Start a timer.",
            (("hours", "integer"), ("minutes", "integer"), ("seconds", "integer")),
        ),
        Tool("cancel_timer", "Stop the timer."),
        Tool("get_time", "What time it is now."),
        Tool("get_weather", "The weather.", (("place", "string"), ("day", "string"))),
        Tool(
            "set_light",
            "Turn a light on or off, or change it.",
            (
                ("room", "string"), ("on", "boolean"), ("brightness", "integer"),
                ("colour", "string"),
            ),
        ),
        Tool("set_volume", "Percent, up or down.", (("level", "integer or string"),), ("level",)),
        Tool("play_music", "Play music of a kind.", (("kind", "string"),), ("kind",)),
        Tool("add_to_list", "Add to the shopping list.", (("item", "string"),), ("item",)),
        Tool("lock_door", "Lock a door.", (("door", "string"),), ("door",)),
    )
}  # fmt: skip
# Tools that others declare, which nano is never asked to use: it must not take them for its own.
STRANGERS: tuple[Tool, ...] = (
    Tool("search", "Search.", (("query", "string"),), ("query",)),
    Tool("send_mail", "Send.", (("to", "string"), ("text", "string")), ("to",)),
    Tool("get_stock", "A price.", (("symbol", "string"),), ("symbol",)),
    Tool("transfer_to_agent", "Hand over.", (("agent", "string"),)),
    Tool("end_call", "Hang up."),
    Tool("book_table", "Book.", (("people", "integer"), ("time", "string")), ("people", "time")),
)
HEADING = "tools:"


def shown(tools: Collection[Tool]) -> str:
    """The system turn that declares `tools`: the bundle's template, filled in."""
    return " ".join([HEADING, *(tool.signature() for tool in tools)])
