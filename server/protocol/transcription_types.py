"""The objects that are about the user's words: of events, and of sessions for them alone."""

from __future__ import annotations

from typing import Literal

from aqaa.server.protocol.session_types import Included, InputAudio, Session
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


class TranscriptionAudio(Wire):
    """The one direction that there is."""

    input: InputAudio


class TranscriptionSession(Wire):
    """What is shown of a session that writes down what it hears and gives no answers."""

    type: Literal["transcription"] = "transcription"
    object: Literal["realtime.transcription_session"] = "realtime.transcription_session"
    id: str
    audio: TranscriptionAudio
    include: list[Included] | None = None
    expires_at: int | None = None


def shown(session: Session) -> Session | TranscriptionSession:
    """The session as its client is to see it: OpenAI takes `parallel_tool_calls` and shows none."""
    if session.type == "realtime":
        return session.model_copy(update={"parallel_tool_calls": None})
    return TranscriptionSession(
        id=session.id,
        audio=TranscriptionAudio(input=session.audio.input),
        include=session.include,
        expires_at=session.expires_at,
    )
