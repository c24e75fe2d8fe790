"""Functions that a client declares: how the model is told of them, and what an answer may do.

The bundle's `[tools]` says how they stand in the prompt (`ToolsConfig`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic_core import from_json, to_json

from aqaa.models.bundle import ToolsConfig


@dataclass(frozen=True)
class Tool:
    """A function that may be called; `parameters` is a JSON schema of its arguments."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Calling:
    """Which calls an answer may make.

    Attributes:
        tools: what the model is told of; never empty.
        choice: `auto`: any or none; `none`; `required`: at least one; a `Tool` of these: that one.
        parallel: whether there may be more than one.
    """

    tools: tuple[Tool, ...]
    choice: Literal["auto", "none", "required"] | Tool = "auto"
    parallel: bool = True

    @property
    def allowed(self) -> tuple[Tool, ...]:
        """What the answer may call."""
        if isinstance(self.choice, Tool):
            return (self.choice,)
        return () if self.choice == "none" else self.tools

    @property
    def must_call(self) -> bool:
        """Whether the answer is a call, whatever the model would say."""
        return self.choice == "required" or isinstance(self.choice, Tool)


def declared(tools: Sequence[Tool], config: ToolsConfig) -> str:
    """How the system's turn tells of `tools`."""
    if config.show == "signatures":
        return " ".join([config.heading, *map(_signature, tools)])
    return "\n".join([config.heading, *map(_as_json, tools)])


def spelt(name: str, arguments: str) -> str:
    """A call as it stands between its marks; arguments that are no JSON stay as they are."""
    return f'{{"name":{to_json(name).decode()},"arguments":{compact(arguments) or "{}"}}}'


def compact(text: str) -> str:
    """JSON without its spaces; any other text as it is."""
    try:
        return to_json(from_json(text, allow_inf_nan=False)).decode()
    except ValueError:
        return text


def _signature(tool: Tool) -> str:
    schema = tool.parameters or {}
    properties, required = schema.get("properties"), schema.get("required")
    names = [
        name if isinstance(required, list) and name in required else f"{name}?"
        for name in (properties if isinstance(properties, dict) else ())
    ]
    return f"{tool.name}({','.join(names)})"


def _as_json(tool: Tool) -> str:
    told: dict[str, Any] = {"name": tool.name}
    if tool.description:
        told["description"] = tool.description
    if tool.parameters is not None:
        told["parameters"] = tool.parameters
    return to_json(told).decode()
