"""What a call of a function looks like amid the ids of an answer: between its marks, one schema."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CallShape:
    """What the calls of one answer must be.

    Attributes:
        call_start: the id before each call.
        call_end: the id behind it.
        schema: JSON schema, as JSON, of what stands between them.
    """

    call_start: int
    call_end: int
    schema: str


class CallPlace:
    """Whether an answer stands inside a call."""

    def __init__(self, shape: CallShape, answer: Iterable[int] = ()) -> None:
        """`answer`: the ids of it that are there already."""
        self.inside = False
        self._shape = shape
        for token in answer:
            self.push(token)

    def push(self, token: int) -> None:
        """Move on by the answer's next id."""
        if self.inside:
            self.inside = token != self._shape.call_end
        else:
            self.inside = token == self._shape.call_start
