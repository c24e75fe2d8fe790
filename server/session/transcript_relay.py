"""The user's words in one session: to the client, and into the memory. Where the bundle has no
transcriber nothing happens here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from aqaa.server.hearing.transcribing import Transcribing, Transcript, TurnWindows
from aqaa.server.parts import ModelParts
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.memory import Memory
from aqaa.tokenizers.transcriber import Piece, text_of


class TranscriptRelay:
    """Joins a session's transcription to its machine and its memory."""

    def __init__(self, parts: ModelParts, memory: Memory, tell: Callable[[fx.Input], None]) -> None:
        """`tell` takes what the machine is to know; it is called by `run`, and by `end`."""
        self._memory = memory
        self._tell = tell
        self._wants_live = False
        self._live_turn: int | None = None  # that the client's buffer holds, as far as is known
        self._transcribing: Transcribing | None = None
        if parts.transcriber is not None:
            self._transcribing = Transcribing(
                parts.transcriber,
                parts.services.executor,
                on_pieces=self._on_pieces,
                on_end=self._on_end,
                on_failure=lambda item_id: tell(fx.UserWordsFailed(item_id)),
                is_live=lambda turn: self._wants_live and turn == self._live_turn,
            )

    def configure(self, session: Session) -> None:
        """The session's settings changed."""
        wanted = session.audio.input.transcription
        self._wants_live = wanted is not None and wanted.is_live

    def hear(self, windows: TurnWindows, *, buffered: bool) -> None:
        """More of a turn; not `buffered`: the client has committed or cleared it meanwhile."""
        if self._transcribing is not None:
            self._live_turn = windows.turn if buffered else self._live_turn
            self._transcribing.hear(windows)

    def pause(self, windows: TurnWindows) -> None:
        """The turn may have ended with these windows."""
        if self._transcribing is not None:
            self._transcribing.pause(windows)

    def empty_buffer(self) -> None:
        """The client commits or clears its buffer: the words of its turn have no item for now."""
        self._live_turn = None

    def end(self, item_id: str, windows: TurnWindows) -> None:
        """The sound that ends with these windows is this item's."""
        if self._transcribing is not None:
            self._transcribing.end(item_id, windows)

    async def run(self) -> None:
        """Work, until cancelled."""
        if self._transcribing is None:
            await asyncio.Event().wait()
        else:
            await self._transcribing.run()

    def _on_pieces(self, item_id: str | None, pieces: Sequence[Piece]) -> None:
        self._tell(fx.UserWords(item_id, _pairs(pieces)))

    def _on_end(self, transcript: Transcript) -> None:
        text, pieces = text_of(transcript.pieces), _pairs(transcript.pieces)
        self._memory.words(transcript.item_id, text)
        seconds = round(transcript.seconds, 3)
        self._tell(fx.UserWordsEnded(transcript.item_id, text, pieces, seconds))


def _pairs(pieces: Sequence[Piece]) -> tuple[tuple[str, float], ...]:
    return tuple((piece.text, piece.logprob) for piece in pieces)
