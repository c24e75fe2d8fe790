"""One session's transcription: the encoder's windows in, the words of each turn out.

Runs beside the conversation and holds up nothing: its jobs come after everything that a listener
waits for. A turn's windows arrive while the user speaks; once the turn is an item of the
conversation its words so far are reported, then the rest as they are recognised, and then its end.
In a pause the rest is recognised as if the turn were over: where it is, its words are told at once,
before the answer can sound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Model
from aqaa.server.urgency import Kind
from aqaa.tokenizers.transcriber import (
    FRAME_SECONDS,
    Piece,
    Transcriber,
    TranscriptStream,
    Window,
    WindowOrTail,
)

log = logging.getLogger(__name__)

JOB_WINDOWS = 4  # about 1 s of speech: whoever is urgent waits for no more than this
MOST_WAITING = 500  # windows (2 minutes of speech) that wait; a turn beyond that gets no words


@dataclass(frozen=True)
class TurnWindows:
    """New windows of the turn with this number; None: of a recording that came whole."""

    turn: int | None
    windows: Sequence[WindowOrTail]


@dataclass
class Transcript:
    """The words of one item: its pieces, and how long its sound is."""

    item_id: str
    pieces: list[Piece] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class _Closing:
    """What a turn ends with if its pause is its end."""

    given: TurnWindows
    pieces: list[Piece] | None = None  # not recognised yet


@dataclass
class _Turn:
    number: int | None
    transcript: Transcript
    stream: TranscriptStream
    windows: list[WindowOrTail] = field(default_factory=list)  # that wait
    closing: _Closing | None = None
    unreported: list[Piece] = field(default_factory=list)
    busy: bool = False  # some of it is being recognised
    ended: bool = False
    failed: bool = False

    @property
    def pauses(self) -> bool:
        """Whether its end waits to be recognised."""
        return self.closing is not None and self.closing.pieces is None and not self.failed

    @property
    def over(self) -> bool:
        """Whether all of it has been recognised."""
        return self.ended and not (self.windows or self.pauses or self.busy)


class Transcribing:
    """The words of one session's turns. Only `run` waits; all else returns at once."""

    def __init__(
        self,
        transcriber: Transcriber,
        executor: Executor,
        *,
        on_pieces: Callable[[str | None, Sequence[Piece]], None],
        on_end: Callable[[Transcript], None],
        on_failure: Callable[[str], None],
        is_live: Callable[[int], bool],
    ) -> None:
        """Reports of an item go to the callbacks, on the event loop.

        Args:
            transcriber: what recognises.
            executor: where it computes.
            on_pieces: takes an item's id and new pieces; without an id, those of a live turn.
            on_end: takes an item's whole transcript; nothing of the item follows.
            on_failure: takes the id of an item that gets no words; nothing of it follows.
            is_live: whether words of the turn with this number are reported while it goes on.
        """
        self._transcriber = transcriber
        self._executor = executor
        self._is_live = is_live
        self._on_pieces = on_pieces
        self._on_end = on_end
        self._on_failure = on_failure
        self._turns: list[
            _Turn
        ] = []  # oldest first; of those without an item only the last goes on
        self._more = asyncio.Event()

    def hear(self, given: TurnWindows) -> None:
        """Steps of the turn that goes on; a new number begins a new turn."""
        self._add(self._turn(given.turn), given.windows)

    def pause(self, given: TurnWindows) -> None:
        """The turn may have ended with these windows; it goes on if others are heard of it."""
        turn = self._turn(given.turn)
        if not turn.failed:
            turn.closing = _Closing(given)
            self._more.set()

    def end(self, item_id: str, given: TurnWindows) -> None:
        """The sound that ends with these windows is this item's; its words, if all are known, are
        told before this returns."""
        turn = self._turn(given.turn)
        turn.transcript.item_id = item_id
        if turn.closing is not None and turn.closing.given is given:
            turn.transcript.seconds += _seconds(given.windows)
        else:
            self._add(turn, given.windows)
        turn.ended = True
        if turn.over and turn is self._turns[0]:
            self._finish(turn)
        self._more.set()

    async def run(self) -> None:
        """Work, until cancelled."""
        while True:
            turn = next((t for t in self._turns if t.windows or t.ended or t.pauses), None)
            if turn is None:
                self._more.clear()
                await self._more.wait()
                continue
            self._report(turn, [])
            if turn.windows:
                await self._recognise(turn)
            elif turn.closing is not None and turn.pauses:
                await self._close(turn, turn.closing)
            if turn.over and turn in self._turns:
                self._finish(turn)

    # --- turns ------------------------------------------------------------------------------------

    def _turn(self, number: int | None) -> _Turn:
        """The turn with this number. An older one that never became an item was given up."""
        if number is None:
            return self._open(number)
        self._turns = [one for one in self._turns if one.ended or one.number == number]
        going_on = [one for one in self._turns if not one.ended]
        return going_on[0] if going_on else self._open(number)

    def _open(self, number: int | None) -> _Turn:
        live = number is not None and self._is_live(number)
        turn = _Turn(number, Transcript(""), self._transcriber.stream(live=live))
        self._turns.append(turn)
        return turn

    def _add(self, turn: _Turn, windows: Sequence[WindowOrTail]) -> None:
        turn.closing = None
        turn.transcript.seconds += _seconds(windows)
        if sum(len(one.windows) for one in self._turns) + len(windows) > MOST_WAITING:
            log.warning("transcription lags too far behind: a turn gets no words")
            turn.failed = True
        if turn.failed:
            turn.windows.clear()
            return
        turn.windows += windows
        self._more.set()

    # --- recognition ------------------------------------------------------------------------------

    async def _recognise(self, turn: _Turn) -> None:
        windows, turn.windows = turn.windows[:JOB_WINDOWS], turn.windows[JOB_WINDOWS:]
        self._report(turn, await self._ask(turn, turn.stream, windows))

    async def _close(self, turn: _Turn, closing: _Closing) -> None:
        """As if the turn were over; its own stream goes on if it is not."""
        closing.pieces = await self._ask(turn, turn.stream.fork(), closing.given.windows)

    async def _ask(
        self, turn: _Turn, stream: TranscriptStream, windows: Sequence[WindowOrTail]
    ) -> list[Piece]:
        turn.busy = True
        try:
            return await self._executor.run(RECOGNISER.ask((stream, windows)), Kind.BULK)
        except Exception:  # whatever a model does: the conversation goes on without these words
            log.exception("transcription failed")
            turn.failed = True
            turn.windows.clear()
            return []
        finally:
            turn.busy = False

    def _report(self, turn: _Turn, pieces: list[Piece]) -> None:
        turn.transcript.pieces += pieces
        turn.unreported += pieces
        live = turn.number is not None and not turn.ended and self._is_live(turn.number)
        if turn.unreported and (turn.ended or live):
            self._on_pieces(turn.transcript.item_id or None, turn.unreported)
            turn.unreported = []

    def _finish(self, turn: _Turn) -> None:
        closing = turn.closing.pieces if turn.closing is not None else None
        self._report(turn, closing or [])
        self._turns.remove(turn)
        if turn.failed:
            self._on_failure(turn.transcript.item_id)
        else:
            self._on_end(turn.transcript)


def _seconds(windows: Sequence[WindowOrTail]) -> float:
    """Of sound."""
    frames = sum(window.new for window in windows if isinstance(window, Window))
    return frames * FRAME_SECONDS


def _recognise(
    values: Sequence[tuple[TranscriptStream, Sequence[WindowOrTail]]],
) -> list[list[Piece] | Exception]:
    results: list[list[Piece] | Exception] = []
    for stream, windows in values:
        try:
            results.append([piece for window in windows for piece in stream.push(window)])
        except Exception as error:  # one session's fault is no other's
            results.append(error)
    return results


RECOGNISER = Model[tuple[TranscriptStream, Sequence[WindowOrTail]], list[Piece]](
    "transcriber", _recognise
)
