"""When the user speaks and when the turn is over: pure rules on the clock of received samples.

    idle ── onset ──> speaking ── pause ──> paused ── turn end ──> idle
                         └──── resumed ───────┘

Speech probabilities come in one 512-sample frame at a time; positions are samples since the session
began. The end of a turn is decided on the clock of samples received, not on whole frames, which
saves half a frame (16 ms) of every answer's latency.

Where a judge of turns is asked (`end_of_turn`), each quiet is reported first (`Quiet`), as soon as
the sound's power tells of it; the judge's word then says how long the silence must last (`judged`).
Only the model's silence ends a turn: any other quiet is over when sound returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.hearing.end_of_turn import Eagerness, Wait
from aqaa.server.hearing.vad import FRAME_SAMPLES
from aqaa.server.protocol.session_types import SemanticVad, ServerVad, Session

ONSET_FRAMES = 2  # 64 ms of speech before it counts: shorter is a click or a breath
HYSTERESIS = 0.15  # speech ends this far below the threshold where it begins (Silero's default)
QUIET_POWER_RATIO = 10 ** (-35 / 10)  # a frame so far below the turn's loudest has no speech
BACKDATE_FRAMES = 3  # the model is sure of a silence 1 to 3 frames (about 50 ms) after it began
LATE_FRAMES = 6  # so late it may notice a quiet that a judge was asked about
MIN_END_PROBABILITY = 0.01  # and never below this, or no silence ends a turn (Silero's default)
PAUSE_MS = 160  # plain silence after which an answer is started on speculation

# Plain silence that ends a turn under `semantic_vad` where there is no judge of turns, and the
# least where an answer follows that cannot be taken back. One of 400 ms cuts off 1.7 % of people's
# orders (docs/performance.md).
EAGERNESS_MS: dict[Eagerness, int] = {"low": 1000, "medium": 400, "auto": 400, "high": 300}
# A turn that `semantic_vad` ended goes on if its speaker does within this time. Of the pauses that
# people make inside their turns 5 % are longer than 600 ms and this (eot-bench).
REOPEN_MS = 1000


@dataclass(frozen=True)
class TurnRules:
    """Turn detection in milliseconds, for both of the client's kinds (server and semantic VAD).

    `reopen_ms`: so long after its end a turn goes on when its speaker does; 0: it never does.
    `eagerness`: that with which a judge of turns is asked; None: silence alone decides.
    `soonest_ms`: of silence, before which no judge ends a turn.
    `regrets`: whether what interrupted an answer is asked about again when it is over.
    """

    threshold: float
    prefix_ms: int
    silence_ms: float
    idle_ms: int | None
    reopen_ms: int = 0
    eagerness: Eagerness | None = None
    soonest_ms: int = 0
    regrets: bool = False

    @classmethod
    def of(cls, detection: ServerVad | SemanticVad) -> TurnRules:
        """The rules that a session's `turn_detection` asks for."""
        if isinstance(detection, ServerVad):
            return cls(
                threshold=detection.threshold,
                prefix_ms=detection.prefix_padding_ms,
                silence_ms=detection.silence_duration_ms,
                idle_ms=detection.idle_timeout_ms,
            )
        plain, takes_back = EAGERNESS_MS[detection.eagerness], detection.interrupt_response
        # Where it takes nothing back, an answer to a part of the turn would go on.
        stays = detection.create_response and not takes_back
        return replace(
            cls.of(ServerVad(silence_duration_ms=plain)),
            reopen_ms=REOPEN_MS if takes_back else 0,
            eagerness=detection.eagerness,
            soonest_ms=plain if stays else 0,
        )

    @classmethod
    def of_session(cls, session: Session) -> TurnRules | None:
        """How the session's turns are told; None: by its client.

        Where nothing is answered, nothing is taken back: what was written down stays.
        """
        detection = session.audio.input.turn_detection
        if detection is None:
            return None
        rules = replace(cls.of(detection), regrets="resume" in session.aqaa.extensions)
        answers = session.type == "realtime"
        return rules if answers else replace(rules, reopen_ms=0, soonest_ms=0)

    @property
    def doubts(self) -> bool:
        """Whether speech during an answer interrupts it, and may be something else."""
        return self.reopen_ms > 0


# For a client that ends its turns itself: pauses are noticed, and none ends the turn.
MANUAL = replace(TurnRules.of(ServerVad()), silence_ms=math.inf)


@dataclass(frozen=True)
class Onset:
    """Speech began at this sample, the prefix padding not included."""

    sample: int


@dataclass(frozen=True)
class Quiet:
    """It has been quiet for so long that the judge is to be asked; it began at this sample.

    Nothing more happens in this quiet before the detector is told what was `judged`.
    """

    sample: int


@dataclass(frozen=True)
class Pause:
    """Silence has lasted so long that the turn may be over; it began at this sample."""

    sample: int


@dataclass(frozen=True)
class Resumed:
    """The user goes on speaking after a quiet or a pause."""


@dataclass(frozen=True)
class EndOfTurn:
    """The turn is over: a silence began at `silence_sample` and was long enough at `sample`.

    It had to last for `wait`, which is the judge's word.
    """

    silence_sample: int
    sample: int
    wait: Wait


@dataclass(frozen=True)
class Idle:
    """Nobody has spoken since this sample."""

    since: int


DetectorEvent = Onset | Quiet | Pause | Resumed | EndOfTurn | Idle


class TurnDetector:
    """Turn detection of one session; its methods return the events that are due.

    Attributes:
        rules: may be changed at any time.
        ask_after_ms: of quiet, after which a judge is to be asked; None: there is none.
    """

    def __init__(self, rules: TurnRules, ask_after_ms: float | None = None) -> None:
        self.rules = rules
        self.ask_after_ms = ask_after_ms
        self.speaking = False
        self.paused = False
        self._frame_end = 0
        self._voiced_frames = 0  # frames in a row at or above the threshold
        self._silence_from: int | None = None  # where the present silence began
        self._asked_from: int | None = None  # where the quiet began that was asked about
        self._wait: Wait | None = None  # what was judged of it
        self._peak_power = 0.0  # power of the turn's loudest frame
        self._low_power_from: int | None = None  # where the present run of quiet frames began
        self._idle_from = 0.0  # where the idle timeout counts from

    def start_at(self, sample: int) -> None:
        """The first frame begins at `sample` (detection was switched on in mid-session)."""
        self._frame_end = sample
        self._idle_from = max(self._idle_from, sample)

    def frame(self, probability: float, power: float = 1.0) -> list[DetectorEvent]:
        """The next frame's probability of speech, and its power on any scale."""
        begin, self._frame_end = self._frame_end, self._frame_end + FRAME_SAMPLES
        self._follow(power, begin)
        voiced = probability >= self.rules.threshold
        self._voiced_frames = self._voiced_frames + 1 if voiced else 0
        if not self.speaking:
            return self._listen()
        was_silent = self._silence_from is not None
        if voiced:
            self._silence_from = None
        elif not was_silent and probability < self._end_threshold():
            # In a quiet room the power tells sooner than the model where speech ended.
            late = BACKDATE_FRAMES if self._asked_from is None else LATE_FRAMES
            earliest = begin - late * FRAME_SAMPLES
            quiet = begin if self._low_power_from is None else self._low_power_from
            self._silence_from = max(quiet, earliest)
        if voiced and (was_silent or self._low_power_from is None):
            return self._go_on()
        if self._asked_from in (None, self._silence_from):
            return []
        # The model knows of a later silence than the one that was asked about, or of none.
        another = self._silence_from is not None or self._low_power_from is None
        return self._go_on() if another else []

    def clock(self, received: int) -> list[DetectorEvent]:
        """The events that are due once `received` samples have come."""
        if not self.speaking:
            return self._idle(received)
        quiet_from = self._quiet_from()
        if quiet_from is None:
            return []
        silent_ms = (received - quiet_from) * 1000 / TOKENIZER_RATE
        if self._asks() and self._wait is None:
            if self._asked_from is not None or silent_ms < (self.ask_after_ms or 0):
                return []
            self._asked_from = quiet_from
            return [Quiet(quiet_from)]
        wait = self._wait if self._wait is not None and self._asks() else self.plain_wait()
        events: list[DetectorEvent] = []
        if not self.paused and silent_ms >= wait.pause_ms:
            self.paused = True
            events.append(Pause(quiet_from))
        if self.paused and self._silence_from is not None and silent_ms >= wait.end_ms:
            events.append(EndOfTurn(quiet_from, received, wait))
            self.reset(received)
        return events

    def judged(self, wait: Wait) -> None:
        """The quiet that was reported last ends the turn if it lasts so long."""
        self._wait = wait

    def plain_wait(self) -> Wait:
        """How long a silence must last where nobody judges it."""
        silence_ms = self.rules.silence_ms
        return Wait("plain", min(PAUSE_MS, silence_ms), silence_ms)

    def reset(self, sample: int) -> None:
        """Nobody is speaking at `sample`, whatever was heard before."""
        self.speaking = self.paused = False
        self._voiced_frames, self._silence_from, self._peak_power = 0, None, 0.0
        self._asked_from = self._wait = None
        self._idle_from = max(self._idle_from, sample)

    def idle_from(self, sample: float) -> None:
        """Idle time counts from `sample`: until there (it may be infinite) the assistant speaks."""
        self._idle_from = sample

    def _asks(self) -> bool:
        return self.ask_after_ms is not None and self.rules.eagerness is not None

    def _quiet_from(self) -> int | None:
        """Where the present silence began, as the model knows or, for a judge, the power tells."""
        if self._silence_from is None and self._asks():
            return self._low_power_from
        return self._silence_from

    def _go_on(self) -> list[DetectorEvent]:
        """No silence any more, or another one."""
        told = self.paused or self._asked_from is not None
        self.paused, self._asked_from, self._wait = False, None, None
        return [Resumed()] if told else []

    def _end_threshold(self) -> float:
        return max(MIN_END_PROBABILITY, self.rules.threshold - HYSTERESIS)

    def _follow(self, power: float, begin: int) -> None:
        self._peak_power = max(self._peak_power, power)
        if power > self._peak_power * QUIET_POWER_RATIO:
            self._low_power_from = None
        elif self._low_power_from is None:
            self._low_power_from = begin

    def _listen(self) -> list[DetectorEvent]:
        if self._voiced_frames < ONSET_FRAMES:
            return []
        self.speaking = True
        return [Onset(self._frame_end - ONSET_FRAMES * FRAME_SAMPLES)]

    def _idle(self, received: int) -> list[DetectorEvent]:
        idle_ms = self.rules.idle_ms
        if idle_ms is None or (received - self._idle_from) * 1000 < idle_ms * TOKENIZER_RATE:
            return []
        since, self._idle_from = int(self._idle_from), received
        return [Idle(since)]
