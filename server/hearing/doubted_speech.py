"""Speech during an answer, until it is known whether it interrupts: its sound, and what it brought.

`SpeechInput` treats it as any turn, so that nothing of it is lost if it is one. What it would tell
of the turn is held here meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from aqaa.server.compute.model import Work
from aqaa.server.hearing.end_of_turn import TurnListener
from aqaa.server.hearing.interruption import (
    LONGEST_MISTAKE_MS,
    Dismissal,
    Doubt,
    Evidence,
    Verdict,
)
from aqaa.server.hearing.loudspeaker import Loudspeaker
from aqaa.server.hearing.speech_events import SpeechEvent
from aqaa.server.hearing.syllables import syllables
from aqaa.server.hearing.vad import FRAME_SAMPLES

Samples = NDArray[np.float32]

ASK_FRAMES = 3  # from one question to the next, 96 ms: each costs some 30 ms of computing


class DoubtedSpeech:
    """One piece of speech that is doubted.

    Attributes:
        begin: where its turn begins.
        held: what has happened since, to be told behind the turn's beginning.
        verdict: what it is; None: it is not known yet.
    """

    def __init__(self, begin: int, onset: int, sound: Samples, loudspeaker: Loudspeaker) -> None:
        """Its turn begins at sample `begin`, its speech at `onset`, since when `sound` was heard:
        whole frames of speech."""
        self.begin = begin
        self.held: list[SpeechEvent] = []
        self.verdict: Verdict | None = None
        self._doubt = Doubt(len(sound) // FRAME_SAMPLES)
        self._loudspeaker = loudspeaker
        self._sound: list[Samples] = [sound]
        self._sound_from = onset
        self._frames_until_asked = 0

    def hear(self, frame: Samples, *, voiced: bool) -> None:
        """The next frame."""
        if self._doubt.elapsed_ms <= LONGEST_MISTAKE_MS:
            self._sound.append(frame.copy())
        self._doubt.frame(voiced)
        self._frames_until_asked -= 1

    def due(self) -> bool:
        """Whether there may be a verdict now that was not asked for yet."""
        return self.verdict is None and self._doubt.may_tell() and self._frames_until_asked <= 0

    def ask(self, listener: TurnListener | None, rest: Sequence[int], *, ended: bool) -> Work[None]:
        """Find the verdict, if there may be one yet.

        Args:
            listener: what the judge of turns knows of it.
            rest: the decoder ids of its end, if it ended here.
            ended: whether it does: then there is a verdict.
        """
        self._frames_until_asked = ASK_FRAMES
        self.verdict = self._doubt.verdict((yield from self._evidence(listener, rest, ended=ended)))

    def after_all(
        self, listener: TurnListener | None, rest: Sequence[int]
    ) -> Work[Dismissal | None]:
        """It was taken for an interruption, and is over: what it was else. None: it was one."""
        if self._doubt.elapsed_ms > LONGEST_MISTAKE_MS:
            return None
        return self._doubt.after_all((yield from self._evidence(listener, rest, ended=True)))

    def _evidence(
        self, listener: TurnListener | None, rest: Sequence[int], *, ended: bool
    ) -> Work[Evidence]:
        kinds = None if listener is None else (yield from listener.kinds(rest))
        sound = np.concatenate(self._sound)
        echo = self._loudspeaker.echo_in(sound, self._sound_from)
        return Evidence(kinds, syllables(sound), echo, ended)
