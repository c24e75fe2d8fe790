"""Functions that a client declares, and whether an answer shall call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

CHOICES = ("auto", "none", "required")
MAX_TOOLS = 128  # OpenAI's bound
STRANGER = "tool_choice names no function of tools"

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]  # OpenAI's rule


def _is_unset(value: object) -> bool:
    return value is None


class FunctionTool(BaseModel):
    """A function that may be called; `parameters` is a JSON schema of its arguments."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["function"] = "function"
    name: FunctionName
    description: str | None = Field(default=None, exclude_if=_is_unset)
    parameters: dict[str, Any] | None = Field(default=None, exclude_if=_is_unset)
    strict: bool | None = Field(default=None, exclude=True)  # calls always are


class NamedFunction(BaseModel):
    """This function shall be called."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["function"] = "function"
    name: FunctionName


def _choice(value: object) -> object:
    """One message for all that is wrong, without a union's tags."""
    named = isinstance(value, dict) and value.get("type") == "function"
    if named or isinstance(value, NamedFunction) or (isinstance(value, str) and value in CHOICES):
        return value
    raise ValueError('give "auto", "none", "required" or {"type": "function", "name": ...}')


ToolChoice = Annotated[
    Literal["auto", "none", "required"] | NamedFunction, BeforeValidator(_choice)
]
Tools = Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)]


def names_a_stranger(choice: object, tools: Sequence[FunctionTool]) -> bool:
    """Whether the choice is of a function that is not declared."""
    return isinstance(choice, NamedFunction) and all(tool.name != choice.name for tool in tools)
