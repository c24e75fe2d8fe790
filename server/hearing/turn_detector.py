"""When the user speaks and when the turn is over: pure rules on the clock of received samples.

    idle ── onset ──> speaking ── pause ──> paused ── turn end ──> idle
                         └──── resumed ───────┘

Speech probabilities come in one 512-sample frame at a time; positions are samples since the session
began. The end of a turn is decided on the clock of samples received, not on whole frames, which
saves half a frame (16 ms) of every answer's latency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.hearing.vad import FRAME
from aqaa.server.protocol.types import SemanticVad, ServerVad

ONSET_FRAMES = 2  # 64 ms of speech before it counts: shorter is a click or a breath
HYSTERESIS = 0.15  # speech ends this far below the threshold where it begins (Silero's default)
QUIET = 10 ** (-35 / 10)  # of the turn's loudest frame, in power: what is below is no speech
BACKDATE_FRAMES = 3  # the model is sure of a silence 1 to 3 frames (about 50 ms) after it began
LOWEST = 0.01  # and never below this, or no silence would end a turn (Silero's too)
PAUSE_MS = 160  # silence after which an answer is started on speculation

# Silence that ends a turn under `semantic_vad`. OpenAI's model waits up to 8, 4 or 2 s by meaning;
# without such a model the eagerness chooses a plain silence around server_vad's 500 ms.
EAGERNESS_MS = {"low": 1000, "medium": 600, "auto": 600, "high": 300}


@dataclass(frozen=True)
class TurnRules:
    """Turn detection in milliseconds, whatever the client called it."""

    threshold: float
    prefix_ms: int
    silence_ms: float
    idle_ms: int | None
    create_response: bool

    @classmethod
    def of(cls, detection: ServerVad | SemanticVad) -> TurnRules:
        """The rules that a session's `turn_detection` asks for."""
        if isinstance(detection, SemanticVad):
            plain = ServerVad(silence_duration_ms=EAGERNESS_MS[detection.eagerness])
            plain = plain.model_copy(update={"create_response": detection.create_response})
        else:
            plain = detection
        return cls(
            threshold=plain.threshold,
            prefix_ms=plain.prefix_padding_ms,
            silence_ms=plain.silence_duration_ms,
            idle_ms=plain.idle_timeout_ms,
            create_response=plain.create_response,
        )


# Where the client says what a turn is: pauses are noticed, and none is an end.
MANUAL = replace(TurnRules.of(ServerVad()), silence_ms=math.inf)


@dataclass(frozen=True)
class Onset:
    """Speech began at this sample (the prefix padding not counted in)."""

    sample: int


@dataclass(frozen=True)
class Pause:
    """Silence has lasted `PAUSE_MS`; it began at this sample."""

    sample: int


@dataclass(frozen=True)
class Resumed:
    """The pause was only that."""


@dataclass(frozen=True)
class TurnEnd:
    """The turn is over: silence began at `silence_sample`, and was long enough at `sample`."""

    silence_sample: int
    sample: int


@dataclass(frozen=True)
class Idle:
    """Nobody has spoken since this sample."""

    since: int


TurnEvent = Onset | Pause | Resumed | TurnEnd | Idle


class TurnDetector:
    """The state of one session's listening."""

    def __init__(self, rules: TurnRules) -> None:
        self.rules = rules
        self.speaking = False
        self.paused = False
        self._frame_end = 0
        self._voiced = 0  # frames in a row at or above the threshold
        self._silence: int | None = None  # where the present silence began
        self._loudest = 0.0  # power of the turn's loudest frame
        self._quiet: int | None = None  # where the present run of quiet frames began
        self._quiet_since = 0  # where the idle timeout counts from

    def start_at(self, sample: int) -> None:
        """The first frame begins at `sample` (detection was switched on in mid-session)."""
        self._frame_end = self._quiet_since = sample

    def frame(self, probability: float, power: float = 1.0) -> list[TurnEvent]:
        """The next frame's probability of speech, and its power on any scale."""
        begin, self._frame_end = self._frame_end, self._frame_end + FRAME
        self._follow(power, begin)
        voiced = probability >= self.rules.threshold
        self._voiced = self._voiced + 1 if voiced else 0
        if not self.speaking:
            return self._listen()
        if voiced:
            self._silence = None
            if self.paused:
                self.paused = False
                return [Resumed()]
        elif self._silence is None and probability < max(LOWEST, self.rules.threshold - HYSTERESIS):
            # In a quiet room the sound itself tells sooner than the model where speech ended.
            earliest = begin - BACKDATE_FRAMES * FRAME
            self._silence = begin if self._quiet is None else max(self._quiet, earliest)
        return []

    def clock(self, received: int) -> list[TurnEvent]:
        """So many samples have been received; what does that end?"""
        if not self.speaking:
            return self._idle(received)
        if self._silence is None:
            return []
        events: list[TurnEvent] = []
        silent_ms = (received - self._silence) * 1000 / TOKENIZER_RATE
        if not self.paused and silent_ms >= min(PAUSE_MS, self.rules.silence_ms):
            self.paused = True
            events.append(Pause(self._silence))
        if self.paused and silent_ms >= self.rules.silence_ms:
            events.append(TurnEnd(self._silence, received))
            self.reset(received)
        return events

    def reset(self, sample: int) -> None:
        """Nobody is speaking at `sample`, whatever was heard before."""
        self.speaking = self.paused = False
        self._voiced, self._silence, self._loudest = 0, None, 0.0
        self._quiet_since = sample

    def suppress_idle_until(self, sample: int) -> None:
        """The assistant will be speaking until `sample`: idleness counts from there."""
        self._quiet_since = max(self._quiet_since, sample)

    def _follow(self, power: float, begin: int) -> None:
        self._loudest = max(self._loudest, power)
        if power > self._loudest * QUIET:
            self._quiet = None
        elif self._quiet is None:
            self._quiet = begin

    def _listen(self) -> list[TurnEvent]:
        if self._voiced < ONSET_FRAMES:
            return []
        self.speaking = True
        return [Onset(self._frame_end - ONSET_FRAMES * FRAME)]

    def _idle(self, received: int) -> list[TurnEvent]:
        idle_ms = self.rules.idle_ms
        if idle_ms is None or (received - self._quiet_since) * 1000 < idle_ms * TOKENIZER_RATE:
            return []
        since, self._quiet_since = self._quiet_since, received
        return [Idle(since)]
