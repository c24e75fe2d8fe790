"""Whether speech during an answer is meant to interrupt it: rules on what was heard of it so far.

    onset ── is it over? ──┬─ no ── many syllables, long, or surely speech ──> interruption
                           └─ yes ── speech, a short word of assent, a noise, the answer itself

Nothing here knows of models or clocks: frames come with the VAD's word, and what else is known is
told with the question. A verdict is found as soon as one of the rules allows it, at the latest
`LAST_MS` after the onset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.server.hearing.vad import FRAME_SAMPLES

Dismissal = Literal["backchannel", "noise", "echo"]
Verdict = Literal["interruption"] | Dismissal

FRAME_MS = 1000 * FRAME_SAMPLES / TOKENIZER_RATE
# Of silence: whatever it was, it is over. "O-kay" is silent for 80 ms at its k, "stop it, please"
# for 200 ms at its comma.
OVER_MS = 256
NOISE_MS = 200  # voiced: what is over sooner is no word ("yes" has 290 ms in the fastest voice)
# Syllables. Words of assent have one or two; so have "stop" and "wait", which only a turn head
# tells from "right".
MANY = 3
LONG_MS = 640  # voiced: few such words are drawn out for so long
SPOKEN_MS = 450  # the same where a turn head takes it for speech
LONGEST_MISTAKE_MS = 2000  # since the onset: what interrupts for longer is meant
LAST_MS = 960  # since the onset: a noise that comes and goes is one by then
# Since the onset: sooner a turn head has heard too little, and too little can be compared with what
# is played. "stop" and an answer of the user's own of any length are past it.
EARLIEST_MS = 320
SURE = 0.8  # a turn head's probability of speech that needs no end of it
ECHO = 0.42  # share of what is heard that is the answer's own sound (`loudspeaker.TAPS`)


@dataclass(frozen=True)
class Kinds:
    """A turn head's probabilities of what the speaker makes; their sum is 1."""

    speech: float
    backchannel: float
    noise: float


@dataclass(frozen=True)
class Evidence:
    """What is known of the sound besides its frames.

    Attributes:
        kinds: a turn head's word of it; None: there is no head, or it has heard too little.
        syllables: how many it has.
        echo: the share of it that is what the client plays, 0 to 1.
        ended: whether turn detection has found the end of the turn.
    """

    kinds: Kinds | None = None
    syllables: int = 0
    echo: float = 0.0
    ended: bool = False


class Doubt:
    """One piece of sound that may be an interruption. Begins with the onset's voiced frames."""

    def __init__(self, onset_frames: int) -> None:
        self._frames = self._voiced = onset_frames
        self._silent = 0  # frames in a row

    @property
    def elapsed_ms(self) -> float:
        """Since the onset."""
        return self._frames * FRAME_MS

    def may_tell(self) -> bool:
        """Whether there may be a verdict, whatever else is known."""
        return self._is_over() or self.elapsed_ms >= EARLIEST_MS

    def frame(self, voiced: bool) -> None:
        """The next frame, and whether there was speech in it."""
        self._frames += 1
        self._voiced += voiced
        self._silent = 0 if voiced else self._silent + 1

    def verdict(self, known: Evidence) -> Verdict | None:
        """What it was; None: it is too early to tell."""
        if self.elapsed_ms >= EARLIEST_MS and known.echo >= ECHO:
            return "echo"
        if known.ended or self._is_over():
            return self._verdict_on_the_whole(known)
        kinds = known.kinds
        spoken = kinds is not None and kinds.speech >= 0.5
        if self._voiced * FRAME_MS >= (SPOKEN_MS if spoken else LONG_MS):
            return "interruption"
        surely = kinds.speech >= SURE if kinds is not None else known.syllables >= MANY
        if surely and self.elapsed_ms >= EARLIEST_MS:
            return "interruption"
        return "noise" if self.elapsed_ms >= LAST_MS else None

    def after_all(self, known: Evidence) -> Dismissal | None:
        """What it was, now that all of it is known and it has interrupted; None: it was meant."""
        if self.elapsed_ms > LONGEST_MISTAKE_MS:
            return None
        if known.echo >= ECHO:
            return "echo"
        if known.kinds is None or known.kinds.speech > 1 - SURE:
            return None
        return "backchannel" if known.kinds.backchannel >= known.kinds.noise else "noise"

    def _is_over(self) -> bool:
        return self._silent * FRAME_MS >= OVER_MS

    def _verdict_on_the_whole(self, known: Evidence) -> Verdict:
        if self._voiced * FRAME_MS < NOISE_MS:
            return "noise"
        kinds = known.kinds
        if kinds is None:
            return "interruption" if known.syllables >= MANY else "backchannel"
        if kinds.speech >= 0.5:
            return "interruption"
        return "backchannel" if kinds.backchannel >= kinds.noise else "noise"
