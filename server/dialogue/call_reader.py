"""Reads a call as the model writes it, and gives it up at once when it can be no legal one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import SchemaValidator, from_json, to_json

from aqaa.models.errors import CallError
from aqaa.server.dialogue.call_schema import validator_of
from aqaa.server.dialogue.tools import Tool

MOST_CHARACTERS = 16_384  # of one call; it is read again with each id


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A whole call, as its function's schema wants it: `arguments` is JSON, `tokens` its ids."""

    name: str
    arguments: str
    tokens: int


class CallReader:
    """One call: `{"name":...,"arguments":{...}}`, in pieces."""

    def __init__(self, allowed: tuple[Tool, ...]) -> None:
        """`allowed`: what may be called."""
        self._allowed = {tool.name: tool for tool in allowed}
        self._text = ""
        self._partial: tuple[Tool, SchemaValidator] | None = None  # of the function it names

    def push(self, text: str) -> None:
        """More of it.

        Raises:
            CallError: whatever comes now, it can be no call of an allowed function any more.
        """
        self._text += text
        if len(self._text) > MOST_CHARACTERS:
            raise CallError(f"a call of more than {MOST_CHARACTERS} characters")
        if not self._text.strip():
            return
        self._check(self._parsed(partial=True), partial=True)

    def finish(self, tokens: int) -> ToolCall:
        """The call, which is whole now and took `tokens` ids.

        Raises:
            CallError: it is none, or of no allowed function, or its arguments break the schema.
        """
        call = self._parsed(partial=False)
        missing = {"name", "arguments"} - call.keys()
        if missing:
            raise CallError(f"a call without {' and '.join(sorted(missing))}")
        self._check(call, partial=False)
        return ToolCall(call["name"], to_json(call["arguments"]).decode(), tokens)

    def _parsed(self, *, partial: bool) -> dict[str, Any]:
        try:
            value = from_json(self._text, allow_partial=partial, allow_inf_nan=False)
        except ValueError as error:
            raise CallError(f"a call that is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise CallError("a call that is no JSON object")
        return value

    def _check(self, call: dict[str, Any], *, partial: bool) -> None:
        if unknown := call.keys() - {"name", "arguments"}:
            raise CallError(f"a call with {sorted(unknown)[0]!r}")
        name, arguments = call.get("name"), call.get("arguments", {})
        if not isinstance(arguments, dict):
            raise CallError("a call whose arguments are no JSON object")
        if name is None and partial:
            return
        tool = self._allowed.get(name) if isinstance(name, str) else None
        if tool is None:
            raise CallError(f"a call of {name!r}, which may not be called here")
        if not partial:
            validator = validator_of(tool.parameters, partial=False)
        elif self._partial is None or self._partial[0] is not tool:
            validator = validator_of(tool.parameters, partial=True)
            self._partial = tool, validator
        else:
            validator = self._partial[1]
        try:
            # Of what is not whole, pydantic lets the last value be anything.
            validator.validate_python(arguments, allow_partial=partial)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise CallError(f"a call of {tool.name!r} with {place}: {first['msg']}") from None
