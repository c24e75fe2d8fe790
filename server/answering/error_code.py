"""What a failed answer is called on the wire."""

from __future__ import annotations

from aqaa.models.errors import (
    AqaaError,
    CallError,
    EngineBusyError,
    EngineDiedError,
    NoSpeechError,
    PromptError,
)
from aqaa.server.protocol.limits import NO_SPEECH

INVALID_CALL = "invalid_tool_call"  # of one that ended in a malformed call


def error_code(error: AqaaError) -> str:
    """The error code that a client sees."""
    match error:
        case EngineDiedError():
            return "engine_died"
        case EngineBusyError():
            return "engine_busy"
        case PromptError():
            return "context_length_exceeded"
        case CallError():
            return INVALID_CALL
        case NoSpeechError():
            return NO_SPEECH
        case _:
            return "server_error"
