"""One session's speech input: wire bytes in; turns and their audio tokens out.

The tokenizer runs while the user speaks, so that little is left to do when the turn ends. At a
pause its stream is forked and the fork is finished: those are the turn's tokens if the pause proves
to be the end, and nothing is lost if it does not. So a turn's sound ends at its last pause, and the
rest of the silence that ended it belongs to no turn.

Where a judge of turns is there and the rules ask for it, it hears the turn as it grows and is asked
at each quiet; then it is the quiet, not the pause, at which the turn's sound ends.

Where the rules say so, a turn that has ended is kept for a moment. If its speaker goes on, it is
open again as if it had never ended: its token stream goes on, and all its sound is of one turn.

Where the rules say so, speech while the client plays an answer is suspected of being no turn: see
`doubted_speech`.

A client that ends its turns itself is treated in the same way: what it commits begins a little
before the first speech and ends with the last. Where no speech is found, all is kept.

What computes is work for the executor (`Work`); a session submits one piece of it at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.audio.wire import AudioFormat, InputConverter, encode
from aqaa.server.compute.model import Work
from aqaa.server.hearing.doubted_speech import DoubtedSpeech
from aqaa.server.hearing.end_of_turn import Judge, TurnListener, Wait, wait_of
from aqaa.server.hearing.interruption import Dismissal
from aqaa.server.hearing.loudspeaker import Loudspeaker
from aqaa.server.hearing.no_speech import SpeechProbability, why_no_question
from aqaa.server.hearing.speech_events import (
    HEARD,
    BufferFull,
    SilenceTimedOut,
    SpeechDismissed,
    SpeechEvent,
    SpeechSuspected,
    TurnEncoded,
    TurnEnded,
    TurnGrew,
    TurnPaused,
    TurnReopened,
    TurnResumed,
    TurnSound,
    TurnStarted,
)
from aqaa.server.hearing.tokenising import AudioTokenStream, Tokenising
from aqaa.server.hearing.transcribing import TurnWindows
from aqaa.server.hearing.turn_detector import (
    MANUAL,
    ONSET_FRAMES,
    DetectorEvent,
    EndOfTurn,
    Idle,
    Onset,
    Pause,
    Quiet,
    Resumed,
    TurnDetector,
    TurnRules,
)
from aqaa.server.hearing.vad import CALL_SAMPLES, FRAME_SAMPLES, SPEECH_PROBABILITY
from aqaa.tokenizers.stream import SampleBuffer
from aqaa.tokenizers.transcriber import WindowOrTail

Samples = NDArray[np.float32]
# After an interruption that was nothing the answer goes on, and its sound is back about so soon:
# what is said meanwhile ("okay ... okay") is doubted like what is said into it.
BACK_SECONDS = 1.0
KEPT_SECONDS = 10  # of sound before any speech, for a client that commits it all the same


@dataclass
class _Turn:
    """A turn's token stream: what it was given, and what it gave."""

    number: int
    begin: int
    fed: int  # it has been given the sound up to this sample
    stream: AudioTokenStream
    listener: TurnListener | None  # the judge's
    may_reopen: bool
    tokens: list[int] = field(default_factory=list)
    windows: list[WindowOrTail] = field(default_factory=list)  # told; kept if it may re-open
    pcm: list[bytes] = field(default_factory=list)  # what it was given, as `HEARD`


@dataclass(frozen=True)
class _EndedTurn:
    """It goes on if speech begins at `until` at the latest."""

    turn: _Turn
    until: int


class SpeechInput:
    """Finds turns in one session's sound. `rules` None: the client decides what a turn is."""

    def __init__(
        self,
        tokenising: Tokenising,
        vad: SpeechProbability,
        converter: Callable[[], InputConverter],
        rules: TurnRules | None,
        max_seconds: float,
        judge: Judge | None = None,
    ) -> None:
        self._tokenising = tokenising
        self._judge = judge
        self._vad = vad
        self._new_converter = converter
        self._converter = converter()
        self._max_samples = round(max_seconds * TOKENIZER_RATE)
        self._manual = rules is None
        self._detector = self._new_detector(rules or MANUAL)
        self.received = 0
        self._recent = SampleBuffer()  # ends at `received`; holds all that is not yet fed
        self._frame_begin = 0
        self._turns = 0  # how many have begun or re-opened: the last one's number
        self._turn: _Turn | None = None
        self._ended_turn: _EndedTurn | None = None
        self._pause: TurnSound | None = None  # the turn, if it ended at this quiet or pause
        self._pause_told = False
        self._loudspeaker = Loudspeaker()
        self._doubted: DoubtedSpeech | None = None
        self._interrupter: DoubtedSpeech | None = None  # the turn, where it was doubted before
        self._nothing_until = 0  # the sample until which an answer that goes on is not heard yet
        self._full = False
        self._spoken = False  # whether somebody speaks in what is buffered

    def push(self, data: bytes) -> Work[list[SpeechEvent]]:
        """Take the next bytes from the wire; returns what they brought about.

        Raises:
            AudioError: they are not audio of the session's format.
        """
        samples = self._converter.push(data)
        events: list[SpeechEvent] = []
        for begin in range(0, samples.size, CALL_SAMPLES):
            new = samples[begin : begin + CALL_SAMPLES]
            heard = iter((yield from self._speech_in(new)))
            for at in range(0, new.size, FRAME_SAMPLES):
                self._append(new[at : at + FRAME_SAMPLES])
                events += yield from self._told(self._listen(heard))
        # The resampler holds back about 20 ms, which count: a silence has grown by them.
        due = self._detector.clock(self._heard_until())
        events += yield from self._told(self._react(due))
        events += yield from self._told(self._feed())
        self._let_go_in_time()
        if self._turn is None:
            keep = self._max_samples if self._manual else KEPT_SECONDS * TOKENIZER_RATE
            self._forget_before(self.received - keep)
        if self._manual:  # the client alone tells when a turn begins and ends
            told = [one for one in events if isinstance(one, TurnGrew | TurnEncoded)]
            return [*told, *self._bound()]
        return events

    def commit(self) -> Work[TurnSound]:
        """End the turn for the client: what is buffered, up to the last pause."""
        self._append(self._converter.flush())
        self._open(self._begin_of_buffer())
        if self._may_feed():
            yield from self._feed_now()
        sound = self._pause or (yield from self._as_if_ended())
        self.clear()
        return sound

    def no_speech(self) -> str | None:
        """Why what is buffered is no question, in words; None if somebody speaks in it."""
        begin = self._begin_of_buffer() if self._turn is None else self._turn.begin
        seconds = (self._heard_until() - begin) / TOKENIZER_RATE
        return why_no_question(seconds, spoken=self._spoken or self._turn is not None)

    def clear(self) -> None:
        """Forget what is buffered, and that somebody was speaking."""
        self._close_turn()
        self._doubted = None
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
        if rules is None or not rules.reopen_ms:
            self._ended_turn = None
        if rules is None:
            self._doubted = None  # the client alone tells what a turn is
        if rules is None or not was_manual:
            self._detector.rules = rules or MANUAL
            return
        self._close_turn()
        self._detector = self._new_detector(rules)
        self._detector.start_at(self.received)
        self._frame_begin = self.received

    def let_go(self) -> None:
        """The turn that ended last stays as it is, whoever speaks."""
        self._ended_turn = None

    def suppress_idle(self, seconds: float) -> None:
        """The assistant speaks for so many more seconds: idle time counts from there."""
        self._detector.idle_from(self.received + seconds * TOKENIZER_RATE)

    # --- who speaks -------------------------------------------------------------------------------

    def _new_detector(self, rules: TurnRules) -> TurnDetector:
        return TurnDetector(rules, None if self._judge is None else self._judge.ask_after_ms)

    def _bound(self) -> list[SpeechEvent]:
        """Drop what comes once a turn that only the client can end is full."""
        if self._turn is None or not (
            self._full or self.received - self._turn.begin > self._max_samples
        ):
            return []
        first, self._full = not self._full, True
        self._turn.fed = self.received
        self._forget_before(self._frame_begin)
        return [BufferFull()] if first else []

    def _heard_until(self) -> int:
        return self.received + self._converter.pending

    def _speech_in(self, new: Samples) -> Work[list[float]]:
        """The probability of speech in each frame that `new` completes, asked for in one call:
        what one frame brings about does not change the next one's."""
        unheard = np.concatenate((self._since(self._frame_begin), new))
        whole = unheard[: unheard.size // FRAME_SAMPLES * FRAME_SAMPLES]
        return (yield from self._vad.push(whole)) if whole.size else []

    def _listen(self, heard: Iterator[float]) -> Work[list[SpeechEvent]]:
        """Run turn detection on each whole frame that is there, `heard` its probabilities."""
        detected: list[DetectorEvent] = []
        while self.received - self._frame_begin >= FRAME_SAMPLES:
            frame = self._since(self._frame_begin)[:FRAME_SAMPLES]
            probability = next(heard)
            self._spoken |= probability >= SPEECH_PROBABILITY
            detected += self._detector.frame(probability, float(np.dot(frame, frame)))
            if (doubted := self._doubted or self._interrupter) is not None:
                voiced = probability >= self._detector.rules.threshold
                doubted.hear(frame, voiced=voiced)
            self._frame_begin += FRAME_SAMPLES
        detected += self._detector.clock(self.received)
        return (yield from self._react(detected))

    def _react(self, detected: list[DetectorEvent]) -> Work[list[SpeechEvent]]:
        detector = self._detector
        events: list[SpeechEvent] = []
        for event in detected:
            match event:
                case Onset():
                    events += self._begin(event.sample)
                case Quiet():
                    events += yield from self._feed()
                    self._pause = yield from self._as_if_ended()
                    detector.judged((yield from self._judged(self._pause)))
                    events += yield from self._react(detector.clock(self.received))
                case Pause():
                    events += yield from self._feed()
                    self._pause = self._pause or (yield from self._as_if_ended())
                    self._pause_told = True
                    pause = self._pause
                    events.append(TurnPaused(pause.tokens, event.sample, pause.windows))
                case Resumed():
                    events += [TurnResumed()] if self._pause_told else []
                    self._pause, self._pause_told = None, False
                case EndOfTurn():
                    sound = self._pause or TurnSound((), TurnWindows(self._turns, ()))
                    yield from self._settle(sound, ended=True)
                    nothing = yield from self._after_all(sound)
                    if nothing:
                        self._nothing_until = event.sample + round(BACK_SECONDS * TOKENIZER_RATE)
                    ended = None if nothing else self._may_reopen(event)
                    over = self._ended(sound, event.silence_sample, event.sample, event.wait)
                    events.append(replace(over, nothing=nothing))
                    self._ended_turn = ended
                case Idle():
                    events.append((yield from self._idled(event)))
        begin = self.received if self._turn is None else self._turn.begin
        too_long = self.received - begin >= self._max_samples
        if detector.speaking and too_long and not self._manual:
            yield from self._feed_now()
            sound = yield from self._as_if_ended()
            events.append(self._ended(sound, self.received, self.received, None))
            detector.reset(self.received)
        return events

    def _judged(self, sound: TurnSound) -> Work[Wait]:
        """How long the silence must last if the turn is `sound`."""
        turn, rules = self._turn, self._detector.rules
        eagerness = rules.eagerness
        if turn is None or turn.listener is None or self._judge is None or eagerness is None:
            return self._detector.plain_wait()
        chance = yield from turn.listener.chance_of_end(sound.tokens[len(turn.tokens) :])
        wait = wait_of(chance, self._judge.thresholds(eagerness), eagerness)
        return replace(wait, end_ms=max(wait.end_ms, rules.soonest_ms))

    def _ended(
        self, sound: TurnSound, silence_sample: int, sample: int, wait: Wait | None
    ) -> TurnEnded:
        self._close_turn()
        return TurnEnded(sound.tokens, silence_sample, sample, sound.windows, wait, pcm=sound.pcm)

    def _idled(self, event: Idle) -> Work[SilenceTimedOut]:
        last_second = self._since(self.received - TOKENIZER_RATE).copy()
        silence = yield from self._tokenising.encode(last_second)
        pcm = (encode(last_second, HEARD),)
        return SilenceTimedOut(tuple(silence.ids), event.since, self.received, pcm)

    # --- speech during an answer ------------------------------------------------------------------

    def assistant_plays(self, data: bytes, format: AudioFormat, seconds: float) -> None:
        """In so many seconds the client begins to play this sound of the assistant."""
        begin = self.received + round(seconds * TOKENIZER_RATE)
        self._loudspeaker.play(data, format, begin, self.received)

    def assistant_stops(self) -> None:
        """The client plays nothing any more."""
        self._loudspeaker.stop(self.received)

    def _told(self, work: Work[list[SpeechEvent]]) -> Work[list[SpeechEvent]]:
        """What `work` brought about, but nothing of a turn that is doubted."""
        events = yield from work
        doubted = self._doubted
        if doubted is None:
            return events
        kinds = [type(event) for event in events]
        place = kinds.index(SpeechSuspected) + 1 if SpeechSuspected in kinds else 0
        events, held = events[:place], events[place:]
        doubted.held += held
        if doubted.due():
            yield from self._settle(self._pause, ended=False)
        if doubted.verdict is None:
            return events
        self._doubted = None
        if doubted.verdict == "interruption":
            goes_on = self._turn is not None and self._detector.rules.regrets
            self._interrupter = doubted if goes_on else None
            return [*events, TurnStarted(doubted.begin), *doubted.held]
        self._close_turn()
        self._detector.reset(self.received)
        return [*events, SpeechDismissed(doubted.verdict)]

    def _settle(self, sound: TurnSound | None, *, ended: bool) -> Work[None]:
        """Ask what the doubted turn is; `sound`: all of it so far, if that is known."""
        doubted, turn = self._doubted, self._turn
        if doubted is None or turn is None:
            return
        rest: tuple[int, ...] = ()
        if turn.listener is not None:
            sound = sound or (yield from self._as_if_ended())
            rest = sound.tokens[len(turn.tokens) :]
        yield from doubted.ask(turn.listener, rest, ended=ended)

    def _after_all(self, sound: TurnSound) -> Work[Dismissal | None]:
        """What the turn is, which interrupted an answer and ends as `sound`, if it is nothing."""
        interrupter, turn = self._interrupter, self._turn
        if interrupter is None or turn is None:
            return None
        return (yield from interrupter.after_all(turn.listener, sound.tokens[len(turn.tokens) :]))

    # --- a turn that has ended and may go on ------------------------------------------------------

    def _begin(self, onset: int) -> list[SpeechEvent]:
        """Speech begins here: of a new turn, or of the one that ended last."""
        ended, self._ended_turn = self._ended_turn, None
        if ended is None or onset > ended.until or self._turn is not None:
            begin = onset - self._detector.rules.prefix_ms * TOKENIZER_RATE // 1000
            begin = self._open(max(begin, self._begin_of_buffer())).begin
            into = onset < self._nothing_until or self._loudspeaker.heard_at(onset)
            if self._detector.rules.doubts and into:
                sound = self._since(onset)[: self._frame_begin - onset].copy()
                self._doubted = DoubtedSpeech(begin, onset, sound, self._loudspeaker)
                return [SpeechSuspected(begin)]
            return [TurnStarted(begin)]
        self._turns += 1
        self._turn = replace(ended.turn, number=self._turns)
        events: list[SpeechEvent] = [TurnReopened(self._turn.begin)]
        if self._turn.windows:
            told = tuple(self._turn.windows)
            events.append(TurnEncoded(TurnWindows(self._turn.number, told)))
        return events

    def _may_reopen(self, end: EndOfTurn) -> _EndedTurn | None:
        rules = self._detector.rules
        if self._turn is None or not (self._turn.may_reopen and rules.reopen_ms):
            return None
        wait = round((end.wait.end_ms + rules.reopen_ms) * TOKENIZER_RATE / 1000)
        return _EndedTurn(self._turn, end.silence_sample + wait)

    def _let_go_in_time(self) -> None:
        earliest_onset = self._frame_begin - ONSET_FRAMES * FRAME_SAMPLES
        if self._ended_turn is not None and earliest_onset > self._ended_turn.until:
            self._ended_turn = None

    # --- the turn's token stream ------------------------------------------------------------------

    def _open(self, begin: int) -> _Turn:
        """The turn that goes on; if there is none, a new one from this sample."""
        if self._turn is None:
            self._turns += 1
            rules, stream = self._detector.rules, self._tokenising.stream()
            judge = self._judge if rules.eagerness is not None else None
            listener = None if judge is None else judge.listen()
            self._turn = _Turn(
                self._turns, begin, begin, stream, listener, may_reopen=rules.reopen_ms > 0
            )
        return self._turn

    def _feed(self) -> Work[list[SpeechEvent]]:
        """Feed the token stream what is new, except in a pause, which may be the turn's end."""
        turn = self._turn
        if turn is None or not self._may_feed():
            return []
        before = len(turn.tokens)
        yield from self._feed_now()
        events: list[SpeechEvent] = []
        if self._doubted is None and (windows := turn.stream.take_windows()):
            turn.windows += windows if turn.may_reopen else ()
            events.append(TurnEncoded(TurnWindows(turn.number, windows)))
        if len(turn.tokens) > before:
            events.append(TurnGrew(tuple(turn.tokens)))
        return events

    def _may_feed(self) -> bool:
        return self._pause is None and not self._full

    def _feed_now(self) -> Work[None]:
        turn = self._turn
        if turn is not None and turn.fed < self.received:
            samples = self._since(turn.fed)
            pcm = encode(samples, HEARD)
            new = yield from self._tokenising.push(turn.stream, samples)
            if turn.listener is not None:
                turn.listener.hear(samples, new)
            turn.tokens += new
            turn.pcm.append(pcm)
            turn.fed = self.received
            self._forget_before(self._frame_begin)

    def _as_if_ended(self) -> Work[TurnSound]:
        turn = self._turn
        assert turn is not None
        end = turn.stream.fork()
        rest = yield from self._tokenising.flush(end)
        tokens = (*turn.tokens, *rest)
        return TurnSound(tokens, TurnWindows(turn.number, end.take_windows()), tuple(turn.pcm))

    def _close_turn(self) -> None:
        self._turn, self._ended_turn, self._full = None, None, False
        self._pause, self._pause_told, self._spoken = None, False, False
        self._interrupter = None

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
