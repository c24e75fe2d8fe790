"""What comes of an answer, in the order in which it is to be sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AnswerText:
    """More text, spoken from `start` seconds of the sound on (an estimate)."""

    text: str
    tokens: int
    start: float


@dataclass(frozen=True)
class AnswerSound:
    """More sound: `tokens` audio tokens went into it, `seconds` of it are in `data`."""

    data: bytes
    seconds: float
    tokens: int


@dataclass(frozen=True)
class AnswerCall:
    """A whole and legal call of a function, `arguments` as JSON; all sound before it was told."""

    name: str
    arguments: str
    tokens: int


@dataclass(frozen=True)
class AnswerEnd:
    """The end, always the last thing."""

    status: Literal["completed", "max_output_tokens", "failed"]
    code: str | None = None
    reason: str = ""  # of a failure, in words


AnswerEvent = AnswerText | AnswerSound | AnswerCall | AnswerEnd
