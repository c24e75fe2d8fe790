"""Ends of turns on a simulated clock: a clip is heard once, then any policy is tried on it.

`Heard.of` runs a clip through the server's own speech input with a judge that is asked in every
quiet of the clip and believed in none. What it said is then played back to the turn detector
(`outcome`) under any policy, so that a frontier of many policies costs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE, TurnThresholds
from aqaa.server.compute.model import Work, compute_alone
from aqaa.server.hearing.end_of_turn import Eagerness, Judge, TurnListener, Wait
from aqaa.server.hearing.no_speech import SpeechProbability
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import (
    REOPEN_MS,
    DetectorEvent,
    EndOfTurn,
    Onset,
    Quiet,
    TurnDetector,
    TurnRules,
)
from aqaa.server.hearing.vad import FRAME_SAMPLES
from aqaa.server.parts import input_of
from aqaa.server.protocol.session_types import SemanticVad, ServerVad
from aqaa.server.protocol.types import PcmFormat

Sound = NDArray[np.float32]
Policy = Callable[[float], Wait]  # the wait for a judge's probability

JUDGED = TurnRules.of(SemanticVad())
PLAIN = TurnRules.of(ServerVad())
MESSAGE_SAMPLES = 320  # a client sends so much at a time: 20 ms
TAIL_SECONDS = 9.0  # of the clip's own quiet behind it: longer than any judge waits
FLOOR_SHARE = 0.1  # that tail is as loud as the frame that is louder than so many others, or
END_FRAMES = 4  # as the clip's last ones if they are quieter: else the VAD would hear it begin
PATIENT_MS = 1500.0  # of silence: no pause within a clip is so long


@dataclass(frozen=True)
class Heard:
    """A clip's frames, a judge's words, and where its speech ends.

    Attributes:
        frames: probability of speech and power, one each 32 ms.
        chances: what the judge says in each quiet, in order; none without a judge.
        end: the sample where the clip's last silence begins.
        spoken_seconds: from the first speech to `end`.
    """

    frames: tuple[tuple[float, float], ...]
    chances: tuple[float, ...]
    end: int
    spoken_seconds: float

    @classmethod
    def of(cls, wave: Sound, tokenising: Tokenising, vad: SpeechProbability, judge: Judge) -> Heard:
        """Hear `wave`, float32 [n] at 16 kHz, with a stream of the VAD that is this clip's own."""
        wave = with_tail(wave)
        disbelieved, listening = _Disbelieved(judge), _Remembering(vad)
        wire, rate = input_of(PcmFormat(rate=TOKENIZER_RATE)), TOKENIZER_RATE
        ears = SpeechInput(tokenising, listening, wire, JUDGED, wave.size / rate + 1, disbelieved)
        pcm = (np.clip(wave, -1, 1) * 32767).astype("<i2")
        for begin in range(0, pcm.size, MESSAGE_SAMPLES):
            compute_alone(ears.push(pcm[begin : begin + MESSAGE_SAMPLES].tobytes()))
        heard = cls(tuple(listening.frames), tuple(disbelieved.said), 0, 0.0)
        patient = list(_detect(heard, replace(PLAIN, silence_ms=PATIENT_MS), None, None))
        begin = min((one.sample for one in patient if isinstance(one, Onset)), default=0)
        ends = [one.silence_sample for one in patient if isinstance(one, EndOfTurn)]
        end = max(ends, default=wave.size)
        return replace(heard, end=end, spoken_seconds=(end - begin) / rate)


@dataclass(frozen=True)
class Outcome:
    """What a policy makes of a clip.

    Attributes:
        delay_ms: from the end of the speech to the end of the turn; None: it was cut off.
        taken_back: whether the turn that was cut off goes on when its speaker does.
    """

    delay_ms: float | None
    taken_back: bool = False


def under_silence(heard: Heard, silence_ms: float) -> Outcome:
    """The end of the clip's turn after a plain silence."""
    return _outcome(heard, _detect(heard, replace(PLAIN, silence_ms=silence_ms), None, None))


def under_judge(heard: Heard, judge: Judge, policy: Policy) -> Outcome:
    """The end of the clip's turn if `judge`, who heard it, is believed as `policy` says."""
    return _outcome(heard, _detect(heard, JUDGED, judge.ask_after_ms, policy))


def two_waits(least: float, sure_ms: float = 200, else_ms: float = 600) -> Policy:
    """A short wait from a probability of `least` on, else a long one."""
    return lambda chance: Wait("plain", 0, sure_ms if chance >= least else else_ms)


def with_tail(wave: Sound) -> Sound:
    """`wave` and behind it noise as loud as its own quiet."""
    count = wave.size // FRAME_SAMPLES
    power = np.square(wave[: count * FRAME_SAMPLES].reshape(count, -1)).mean(axis=1)
    floor = np.sqrt(min(np.quantile(power, FLOOR_SHARE), power[-END_FRAMES:].mean()))
    noise = np.random.default_rng(0).standard_normal(round(TAIL_SECONDS * TOKENIZER_RATE))
    return np.concatenate((wave, (floor * noise).astype(np.float32)))


def _outcome(heard: Heard, events: Iterator[DetectorEvent]) -> Outcome:
    cut: EndOfTurn | None = None
    for event in events:
        if isinstance(event, EndOfTurn):
            # Power may tell of the last silence long before the VAD does, which tells of `end`.
            if event.sample >= heard.end and cut is None:
                return Outcome((event.sample - heard.end) * 1000 / TOKENIZER_RATE)
            cut = cut or event
        if isinstance(event, Onset) and cut is not None:
            late_ms = (event.sample - cut.sample) * 1000 / TOKENIZER_RATE
            return Outcome(None, late_ms <= REOPEN_MS)
    return Outcome(None)


def _detect(
    heard: Heard, rules: TurnRules, ask_after_ms: float | None, policy: Policy | None
) -> Iterator[DetectorEvent]:
    """What the detector tells of the clip, the judge's words taken from `heard`."""
    detector, said = TurnDetector(rules, ask_after_ms), iter(heard.chances)
    for received in range(0, len(heard.frames) * FRAME_SAMPLES + 1, MESSAGE_SAMPLES):
        due: list[DetectorEvent] = []
        if received % FRAME_SAMPLES < MESSAGE_SAMPLES and received >= FRAME_SAMPLES:
            due += detector.frame(*heard.frames[received // FRAME_SAMPLES - 1])
        due += detector.clock(received)
        while due:
            event = due.pop(0)
            yield event
            if isinstance(event, Quiet) and policy is not None:
                detector.judged(policy(next(said, 0.0)))
                due += detector.clock(received)


class _Remembering:
    """A VAD stream whose frames are kept."""

    def __init__(self, vad: SpeechProbability) -> None:
        self._vad = vad
        self.frames: list[tuple[float, float]] = []

    def push(self, samples: Sound) -> Work[list[float]]:
        probabilities = yield from self._vad.push(samples)
        powers = [float(np.dot(frame, frame)) for frame in samples.reshape(-1, FRAME_SAMPLES)]
        self.frames += zip(probabilities, powers, strict=True)
        return probabilities


class _Disbelieved:
    """A judge whose words are kept, and who is not believed: the turn goes on."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.name, self.ask_after_ms = judge.name, judge.ask_after_ms
        self.said: list[float] = []

    def thresholds(self, eagerness: Eagerness) -> TurnThresholds:
        return self._judge.thresholds(eagerness)

    def listen(self) -> _DisbelievedListener:
        return _DisbelievedListener(self._judge.listen(), self.said)


class _DisbelievedListener:
    def __init__(self, listener: TurnListener, said: list[float]) -> None:
        self._listener = listener
        self._said = said

    def hear(self, samples: Sound, ids: Sequence[int]) -> None:
        self._listener.hear(samples, ids)

    def chance_of_end(self, rest: Sequence[int]) -> Work[float]:
        self._said.append((yield from self._listener.chance_of_end(rest)))
        return 0.0
