"""What is wrong with a client's message, as a value that becomes an `error` event."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

PARAM_LENGTH = 512  # characters of a `param`: what a client calls its keys may be of any length


class ProtocolError(Exception):
    """A message that is no legal client event: sent back as an `error` event, session unharmed."""

    def __init__(
        self, code: str, message: str, param: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.event_id = event_id


def invalid(
    error: ValidationError, given: object, root: str = "", event_id: str | None = None
) -> ProtocolError:
    """The error for the first fault that a validation found in `given`.

    `root` names what `given` is, where it is a part of the client's message.
    """
    fault = error.errors(include_url=False, include_input=False)[0]
    kind, context = fault["type"], fault.get("ctx", {})
    missing = kind in ("missing", "union_tag_not_found")
    location = [*fault["loc"]]
    words = fault["msg"].removeprefix("Value error, ")
    match kind:
        case "union_tag_invalid":
            location.append("type")
            words = f"{str(context['tag'])[:64]!r} is none of {context['expected_tags']}"
        case "union_tag_not_found":
            location.append("type")
            words = "Field required"
        case "model_type" | "dict_type":
            words = "Input should be an object"
    path = ".".join([*([root] if root else []), *_keys(location, given, missing=missing)])
    path = path[:PARAM_LENGTH]
    code = "missing_required_parameter" if missing else "invalid_value"
    return ProtocolError(code, f"{path}: {words}" if path else words, path or None, event_id)


def _keys(location: list[str | int], given: Any, *, missing: bool) -> list[str]:
    """The steps of `location` that are in `given`; the last one is not, where it is missing.

    pydantic's paths also name the members of unions, of which no client knows.
    """
    path = []
    for place, step in enumerate(location):
        is_last = place == len(location) - 1
        match given, step:
            case dict(), str() if step in given or (missing and is_last):
                path.append(step)
                given = given.get(step)
            case list(), int():
                path.append(str(step))
                given = given[step]
    return path
