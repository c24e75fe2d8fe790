"""What one session hears: wire bytes in; turns, and their audio tokens, out.

The tokenizer runs while the user speaks, so that little is left to do when the turn ends. At a
pause its stream is forked and the fork is finished: those are the turn's tokens if the pause proves
to be the end, and nothing is lost if it does not. A turn's sound therefore ends at its last pause,
and the rest of the silence that ended it belongs to nobody.

A client that ends its turns itself is heard in the same way: what it commits begins a little before
the first speech and ends with the last. Where no speech is found, all is kept.

All methods are plain calls that compute; the session makes them in worker threads, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.audio.wire import InputConverter
from aqaa.server.hearing.turn_detector import (
    MANUAL,
    Idle,
    Onset,
    Pause,
    Resumed,
    TurnDetector,
    TurnEnd,
    TurnEvent,
    TurnRules,
)
from aqaa.server.hearing.vad import FRAME
from aqaa.tokenizers.stream import SampleBuffer

Samples = NDArray[np.float32]
KEEP_SECONDS = 10  # of what was heard while nobody spoke, for a commit that the client decides on


class TokenStream(Protocol):
    """A streaming tokenizer's state (`aqaa.tokenizers.dual.DualStream`)."""

    def push(self, pcm: Samples, /) -> list[int]:
        """New decoder ids, in whole groups, of float32 [n] at 16 kHz."""

    def flush(self) -> list[int]:
        """The ids that were waiting for more sound; the stream is over."""

    def fork(self) -> TokenStream:
        """A copy that goes its own way."""


class Tokenizer(Protocol):
    """Makes token streams (`aqaa.tokenizers.dual.DualTokenizer`)."""

    def stream(self) -> TokenStream:
        """A new stream."""

    def encode(self, wav: Samples, /) -> list[int]:
        """Decoder ids of a whole recording, float32 [n] at 16 kHz."""


class SpeechProbability(Protocol):
    """A VAD stream (`vad.VadStream`)."""

    def push(self, frame: Samples, /) -> float:
        """Probability of speech in float32 [512] at 16 kHz."""


# --- what was heard; sample positions count from the session's first ------------------------------


@dataclass(frozen=True)
class Started:
    """Speech began at `sample`, the prefix padding counted in."""

    sample: int


@dataclass(frozen=True)
class Spoken:
    """The turn so far, in audio tokens; more will come."""

    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Paused:
    """The turn as it is if this pause, which began at `sample`, is its end."""

    tokens: tuple[int, ...]
    sample: int


@dataclass(frozen=True)
class WentOn:
    """The pause was not the end."""


@dataclass(frozen=True)
class Ended:
    """The turn is over: silence began at `silence_sample`, and was long enough at `sample`."""

    tokens: tuple[int, ...]
    silence_sample: int
    sample: int


@dataclass(frozen=True)
class NobodySpoke:
    """The idle timeout ran out at `sample`, having begun at `since`."""

    tokens: tuple[int, ...]
    since: int
    sample: int


@dataclass(frozen=True)
class Overflowed:
    """The buffer is full; audio is dropped until the client commits or clears. Said once."""


Heard = Started | Spoken | Paused | WentOn | Ended | NobodySpoke | Overflowed


class Ears:
    """One session's listening. `rules` None: the client decides what a turn is."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vad: SpeechProbability,
        converter: Callable[[], InputConverter],
        rules: TurnRules | None,
        max_seconds: float,
    ) -> None:
        self._tokenizer = tokenizer
        self._vad = vad
        self._new_converter = converter
        self._converter = converter()
        self._most = round(max_seconds * TOKENIZER_RATE)
        self._manual = rules is None
        self._detector = TurnDetector(rules or MANUAL)
        self.received = 0
        self._recent = SampleBuffer()  # ends at `received`; holds all that is not yet fed
        self._frame_begin = 0
        self._turn_begin = 0
        self._fed = 0  # what of the turn the token stream has been given, up to this sample
        self._stream: TokenStream | None = None
        self._tokens: list[int] = []
        self._paused: tuple[int, ...] | None = None  # the turn's tokens, if it ended here
        self._full = False

    def hear(self, data: bytes) -> list[Heard]:
        """The next bytes from the wire.

        Raises:
            AudioError: they are not audio of the session's format.
        """
        samples = self._converter.push(data)
        heard: list[Heard] = []
        for begin in range(0, samples.size, FRAME):
            self._append(samples[begin : begin + FRAME])
            heard += self._listen()
        # The resampler holds back some 20 ms; they were received, and a silence has grown by them.
        heard += self._react(self._detector.clock(self._heard_until()))
        heard += self._feed()
        if self._stream is None:
            keep = self._most if self._manual else KEEP_SECONDS * TOKENIZER_RATE
            self._forget_before(self.received - keep)
        if self._manual:  # who speaks when is the client's to tell
            return [one for one in heard if isinstance(one, Spoken)] + self._bound()
        return heard

    def commit(self) -> list[int]:
        """The client ends the turn: the tokens of what is buffered, up to the last pause."""
        self._append(self._converter.flush())
        self._open(self._begin_of_buffer())
        self._feed()
        tokens = self._as_if_ended() if self._paused is None else self._paused
        self.clear()
        return list(tokens)

    def tokenise(self, converter: Callable[[], InputConverter], data: bytes) -> list[int]:
        """The tokens of a recording that came whole; nothing to do with the stream.

        Raises:
            AudioError: `data` is not audio of the converter's format.
        """
        whole = converter()
        samples = np.concatenate((whole.push(data), whole.flush()))
        return self._tokenizer.encode(samples)

    def clear(self) -> None:
        """Forget what is buffered, and whoever was speaking."""
        self._close_turn()
        self._converter = self._new_converter()
        self._recent.drop(len(self._recent))
        self._frame_begin = self.received
        self._detector.reset(self.received)
        self._detector.start_at(self.received)

    def configure(
        self, converter: Callable[[], InputConverter] | None, rules: TurnRules | None
    ) -> None:
        """The session changed its input format (else `converter` is None) or its turn detection."""
        if converter is not None:
            self._append(self._converter.flush())
            self._new_converter, self._converter = converter, converter()
        was_manual, self._manual = self._manual, rules is None
        if rules is None or not was_manual:
            self._detector.rules = rules or MANUAL
            return
        self._close_turn()
        self._detector = TurnDetector(rules)
        self._detector.start_at(self.received)
        self._frame_begin = self.received

    def suppress_idle_until(self, sample: int) -> None:
        """The assistant speaks until then: nobody is idle before."""
        self._detector.suppress_idle_until(sample)

    # --- who speaks -------------------------------------------------------------------------------

    def _bound(self) -> list[Heard]:
        """A turn that only the client can end is full at some time: what comes then is dropped."""
        if self._stream is None or not (
            self._full or self.received - self._turn_begin > self._most
        ):
            return []
        first, self._full = not self._full, True
        self._fed = self.received
        self._forget_before(self._frame_begin)
        return [Overflowed()] if first else []

    def _heard_until(self) -> int:
        return self.received + self._converter.pending

    def _listen(self) -> list[Heard]:
        """After each frame's worth of samples: who speaks, who has stopped?"""
        events: list[TurnEvent] = []
        while self.received - self._frame_begin >= FRAME:
            frame = self._since(self._frame_begin)[:FRAME]
            events += self._detector.frame(self._vad.push(frame), float(np.dot(frame, frame)))
            self._frame_begin += FRAME
        events += self._detector.clock(self.received)
        return self._react(events)

    def _react(self, events: list[TurnEvent]) -> list[Heard]:
        detector = self._detector
        heard: list[Heard] = []
        for event in events:
            match event:
                case Onset():
                    begin = event.sample - detector.rules.prefix_ms * TOKENIZER_RATE // 1000
                    self._open(max(begin, self._begin_of_buffer()))
                    heard.append(Started(self._turn_begin))
                case Pause():
                    heard += self._feed()
                    self._paused = self._as_if_ended()
                    heard.append(Paused(self._paused, event.sample))
                case Resumed():
                    self._paused = None
                    heard.append(WentOn())
                case TurnEnd():
                    tokens = self._paused or ()
                    heard.append(Ended(tokens, event.silence_sample, event.sample))
                    self._close_turn()
                case Idle():
                    heard.append(self._idled(event))
        too_long = self.received - self._turn_begin >= self._most
        if detector.speaking and too_long and not self._manual:
            self._feed_now()
            heard.append(Ended(self._as_if_ended(), self.received, self.received))
            detector.reset(self.received)
            self._close_turn()
        return heard

    def _idled(self, event: Idle) -> NobodySpoke:
        silence = self._tokenizer.encode(self._since(self.received - TOKENIZER_RATE).copy())
        return NobodySpoke(tuple(silence), event.since, self.received)

    # --- the turn's token stream ------------------------------------------------------------------

    def _open(self, begin: int) -> None:
        """Begin a turn at this sample, unless one is going on."""
        if self._stream is None:
            self._stream = self._tokenizer.stream()
            self._turn_begin = self._fed = begin

    def _feed(self) -> list[Heard]:
        """Give the stream what it has not had, except in a pause, which may be the end."""
        if self._stream is None or self._paused is not None or self._full:
            return []
        before = len(self._tokens)
        self._feed_now()
        return [Spoken(tuple(self._tokens))] if len(self._tokens) > before else []

    def _feed_now(self) -> None:
        if self._stream is not None and self._fed < self.received:
            self._tokens += self._stream.push(self._since(self._fed))
            self._fed = self.received
            self._forget_before(self._frame_begin)

    def _as_if_ended(self) -> tuple[int, ...]:
        assert self._stream is not None
        return (*self._tokens, *self._stream.fork().flush())

    def _close_turn(self) -> None:
        self._stream, self._tokens, self._paused, self._full = None, [], None, False

    # --- recent samples ---------------------------------------------------------------------------

    def _append(self, samples: Samples) -> None:
        self._recent.append(samples)
        self.received += samples.size

    def _begin_of_buffer(self) -> int:
        return self.received - len(self._recent)

    def _since(self, sample: int) -> Samples:
        """What was received from this sample on; a view, until the next append."""
        begin = max(0, sample - self._begin_of_buffer())
        return self._recent.peek(len(self._recent))[begin:]

    def _forget_before(self, sample: int) -> None:
        extra = sample - self._begin_of_buffer()
        if extra > 0:
            self._recent.drop(extra)
