"""What is wrong with a client's message, as a value that becomes an `error` event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

MOST_FAULTS = 64  # are looked at: a list may hold tens of thousands
MISSING = ("missing", "union_tag_not_found")  # pydantic's names for it
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
    """The error for what a validation found in `given`.

    `root` names what `given` is, where it is a part of the client's message.
    """
    found = error.errors(include_url=False, include_input=False)
    return told_of(found, given, root, event_id)


def told_of(
    faults: Sequence[ErrorDetails], given: object, root: str = "", event_id: str | None = None
) -> ProtocolError:
    """As `invalid`, for pydantic's list of faults: of a union's members the one that came far."""
    fault = max(faults[:MOST_FAULTS], key=lambda fault: len(_keys(fault, given)))
    words = fault["msg"].removeprefix("Value error, ")
    match fault["type"]:
        case "union_tag_invalid":
            tag, expected = str(fault["ctx"]["tag"]), fault["ctx"]["expected_tags"]
            words = f"{tag[:64]!r} is none of {expected}"
        case "union_tag_not_found":
            words = "Field required"
        case "model_type" | "dict_type":
            words = "Input should be an object"
    path = ".".join([*([root] if root else []), *_keys(fault, given)])[:PARAM_LENGTH]
    code = "missing_required_parameter" if fault["type"] in MISSING else "invalid_value"
    return ProtocolError(code, f"{path}: {words}" if path else words, path or None, event_id)


def _keys(fault: ErrorDetails, given: Any) -> list[str]:
    """The steps to a fault that are in `given`; the last one is not, where it is missing.

    pydantic's paths also name the members of unions, of which no client knows.
    """
    location = [*fault["loc"]]
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        location.append("type")
    path = []
    for place, step in enumerate(location):
        is_last = place == len(location) - 1
        match given, step:
            case dict(), str() if step in given or (fault["type"] in MISSING and is_last):
                path.append(step)
                given = given.get(step)
            case list(), int():
                path.append(str(step))
                given = given[step]
    return path
