"""What is wrong with a client's message, as a value that becomes an `error` event."""

from __future__ import annotations

# pydantic puts the tag of a union's member into a path; no client knows it.
UNION_TAGS = {
    *("message", "function_call", "function_call_output", "item_reference"),
    *("input_text", "input_audio", "output_text", "output_audio"),
    *("audio/pcm", "audio/pcmu", "audio/pcma", "server_vad", "semantic_vad"),
}


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
    message: str, kind: str, location: tuple[int | str, ...], event_id: str | None
) -> ProtocolError:
    """The error for one failed field of a validation."""
    path = ".".join(str(part) for part in location if part not in UNION_TAGS)
    code = "missing_required_parameter" if kind == "missing" else "invalid_value"
    return ProtocolError(code, f"{path}: {message}" if path else message, path or None, event_id)
