"""What a session's speech input tells: turns, as they begin, grow, pause and end.

Sample positions count from the session's first, at 16 kHz.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.audio.wire import AudioFormat
from aqaa.server.hearing.end_of_turn import Wait
from aqaa.server.hearing.interruption import Dismissal
from aqaa.server.hearing.transcribing import TurnWindows

HEARD = AudioFormat("pcm16", TOKENIZER_RATE)  # how a turn's sound is kept


@dataclass(frozen=True)
class TurnStarted:
    """Speech began at `sample`, the prefix padding counted in."""

    sample: int


@dataclass(frozen=True)
class TurnReopened:
    """The turn that ended last goes on. It began at `sample`, as it did before."""

    sample: int


@dataclass(frozen=True)
class TurnGrew:
    """The turn so far, in audio tokens; more will come."""

    tokens: tuple[int, ...]


@dataclass(frozen=True)
class TurnEncoded:
    """New windows of the turn, for a transcriber. They may be ahead of the turn's tokens.

    A turn that is open again has another number: all its windows are told again.
    """

    windows: TurnWindows


@dataclass(frozen=True)
class TurnPaused:
    """The turn as it is if this pause, which began at `sample`, is its end.

    `windows` are the last then, and no others: `TurnEnded` has the very same value.
    """

    tokens: tuple[int, ...]
    sample: int
    windows: TurnWindows


@dataclass(frozen=True)
class TurnResumed:
    """The pause was not the end of the turn."""


@dataclass(frozen=True)
class TurnEnded:
    """The turn is over: silence began at `silence_sample`, and was long enough at `sample`.

    `wait` is what was asked of the silence; None: the turn was as long as one may be. `nothing`:
    it interrupted an answer, and was not meant to; None: it was, or nobody asked. `pcm` is as in
    `TurnSound`.
    """

    tokens: tuple[int, ...]
    silence_sample: int
    sample: int
    windows: TurnWindows
    wait: Wait | None
    nothing: Dismissal | None = None
    pcm: Sequence[bytes] = ()


@dataclass(frozen=True)
class SilenceTimedOut:
    """Nobody spoke from `since` to `sample`, for the session's idle timeout.

    `pcm` is as in `TurnSound`.
    """

    tokens: tuple[int, ...]
    since: int
    sample: int
    pcm: Sequence[bytes] = ()


@dataclass(frozen=True)
class SpeechSuspected:
    """Somebody seems to speak while the assistant does; `sample` as in `TurnStarted`.

    Nothing else is told of it until it is known whether that interrupts: then the turn has started,
    and what has happened since is told behind, or it is dismissed.
    """

    sample: int


@dataclass(frozen=True)
class SpeechDismissed:
    """What was suspected is not meant for the assistant: nobody has spoken."""

    verdict: Dismissal


@dataclass(frozen=True)
class BufferFull:
    """The buffer is full; audio is dropped until a commit or a clear. Reported once."""


SpeechEvent = (
    TurnStarted
    | TurnReopened
    | TurnGrew
    | TurnEncoded
    | TurnPaused
    | TurnResumed
    | TurnEnded
    | SilenceTimedOut
    | SpeechSuspected
    | SpeechDismissed
    | BufferFull
)


@dataclass(frozen=True)
class TurnSound:
    """A turn's sound: its audio tokens, the last of its windows, and the sound as `HEARD`."""

    tokens: tuple[int, ...]
    windows: TurnWindows
    pcm: Sequence[bytes] = ()
