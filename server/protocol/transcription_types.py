"""The objects that events about the user's words carry."""

from __future__ import annotations

from typing import Literal

from aqaa.server.protocol.types import Wire


class TokenLogprob(Wire):
    """How sure the recogniser is of a piece of a transcript."""

    token: str
    bytes: list[int]
    logprob: float


class DurationUsage(Wire):
    """What a transcript took: seconds of sound."""

    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionError(Wire):
    """Why there is no transcript."""

    type: Literal["server_error"] = "server_error"
    code: str
    message: str
