"""From a session's events to messages in its outbox: names of the protocol, what may overtake."""

from __future__ import annotations

from collections.abc import Callable

from pydantic_core import to_json

from aqaa.server.gateway.outbox import Outbox, Outgoing
from aqaa.server.protocol import beta
from aqaa.server.protocol import server_events as server

DELTAS = (
    server.ResponseOutputAudioDelta,
    server.ResponseOutputAudioTranscriptDelta,
    server.ResponseOutputTextDelta,
)
# What tells of the user, and not of an answer.
URGENT = (
    server.ErrorEvent,
    server.SessionUpdated,
    server.InputAudioBufferSpeechStarted,
    server.InputAudioBufferSpeechStopped,
    server.InputAudioBufferCommitted,
    server.InputAudioBufferCleared,
    server.InputAudioBufferTimeoutTriggered,
    server.InterruptionReported,
)


class OutboxOutlet:
    """Where one session's events go."""

    def __init__(self, outbox: Outbox, *, speaks_beta: bool) -> None:
        self._outbox = outbox
        self._speaks_beta = speaks_beta

    def send(self, event: server.ServerEvent, left: Callable[[], None] | None = None) -> None:
        """Queue an event; `left` is called once it has gone to the socket. Never waits."""
        if isinstance(event, server.ResponseDone) and event.response.status == "cancelled":
            for item in event.response.output:
                self.drop(item.id or "")
        text = self._text(event)
        if text is not None:
            delta_of = event.item_id if isinstance(event, DELTAS) else None
            message = Outgoing(text, delta_of, left)
            self._outbox.put(message, urgent=isinstance(event, URGENT))

    def room(self) -> int:
        """How many bytes more may wait until they are read."""
        return self._outbox.room()

    def drop(self, item_id: str) -> None:
        """Forget what waits of this answer: it was cut."""
        self._outbox.drop(item_id)

    def _text(self, event: server.ServerEvent) -> str | None:
        if not self._speaks_beta:
            return event.model_dump_json()
        old = beta.from_ga(event.model_dump())
        return None if old is None else to_json(old, inf_nan_mode="null").decode()
