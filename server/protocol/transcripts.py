"""The words of the user's items, as the wire tells them.

A transcript is asynchronous: it comes after its item, before, between or after the events of the
answer. An item whose words are due gets deltas, then exactly one `completed` or `failed`, unless it
has left the conversation.
"""

from __future__ import annotations

from collections.abc import Sequence

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Items, MakeId
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.transcription_types import (
    DurationUsage,
    TokenLogprob,
    TranscriptionError,
)
from aqaa.server.protocol.types import InputSound, Message

LOGPROBS = "item.input_audio_transcription.logprobs"  # in a session's `include`


class Transcripts:
    """Which items get words, and the events about them."""

    def __init__(self, items: Items, make_id: MakeId) -> None:
        self._items = items
        self._make_id = make_id
        self._due: set[str] = set()
        items.on_gone.append(self._forget)

    def expect(self, item_id: str) -> None:
        """The words of this item, which is new, are wanted."""
        self._due.add(item_id)

    def react(self, given: fx.Words, session: Session, next_item: str) -> list[server.ServerEvent]:
        """What is said about words that were, or could not be, recognised.

        `next_item` is the id that the turn which goes on will have.
        """
        if given.item_id is None:
            wanted = session.audio.input.transcription
            return [self._delta(given, next_item, session)] if wanted and wanted.is_live else []
        if given.item_id not in self._due:
            return []
        match given:
            case fx.UserWords():
                return [self._delta(given, given.item_id, session)]
            case fx.UserWordsEnded():
                self._due.discard(given.item_id)
                self._keep(given.item_id, given.transcript)
                return [
                    server.InputAudioTranscriptionCompleted(
                        event_id=self._make_id("event"),
                        item_id=given.item_id,
                        transcript=given.transcript,
                        usage=DurationUsage(seconds=given.seconds),
                        logprobs=_logprobs(given.pieces, session),
                    )
                ]
            case fx.UserWordsFailed():
                self._due.discard(given.item_id)
                error = TranscriptionError(
                    code="transcription_failed",
                    message="the words of this item could not be recognised; its sound was heard",
                )
                return [
                    server.InputAudioTranscriptionFailed(
                        event_id=self._make_id("event"), item_id=given.item_id, error=error
                    )
                ]

    def _forget(self, item_id: str) -> None:
        self._due.discard(item_id)

    def _delta(self, given: fx.UserWords, item_id: str, session: Session) -> server.ServerEvent:
        return server.InputAudioTranscriptionDelta(
            event_id=self._make_id("event"),
            item_id=item_id,
            delta="".join(text for text, _ in given.pieces),
            logprobs=_logprobs(given.pieces, session),
        )

    def _keep(self, item_id: str, transcript: str) -> None:
        item = self._items.conversation.get(item_id)
        if isinstance(item, Message):
            content = [
                part.model_copy(update={"transcript": transcript})
                if isinstance(part, InputSound)
                else part
                for part in item.content
            ]
            new = item.model_copy(update={"content": content})
            self._items.conversation.replace(item_id, new)


def _logprobs(pieces: Sequence[tuple[str, float]], session: Session) -> list[TokenLogprob] | None:
    if LOGPROBS not in (session.include or ()):
        return None
    return [
        TokenLogprob(token=text, bytes=list(text.encode()), logprob=logprob)
        for text, logprob in pieces
    ]
