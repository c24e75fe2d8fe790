"""Whether a speaker who pauses has finished: the judge's word, and how long a silence it asks for.

A judge (`Judge`) hears a turn from its beginning and is asked in each quiet how likely it is that
the turn is over. The more likely, the shorter a silence ends it. Thresholds and silences belong to
the judge and to the client's eagerness: what share of false ends it bears. A turn that ended too
early is taken back when its speaker goes on, which is what makes short silences bearable at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TurnThresholds
from aqaa.server.compute.model import Work
from aqaa.server.hearing.interruption import Kinds

Samples = NDArray[np.float32]
Eagerness = Literal["low", "medium", "high", "auto"]
Word = Literal["sure", "likely", "unsure", "unlikely", "plain"]

UNSURE_MS = 600  # silence that ends a turn whose end is neither sure, nor likely, nor unlikely
LONGEST_MS: dict[Eagerness, int] = {"low": 8000, "medium": 4000, "auto": 4000, "high": 2000}
# Where the end is unlikely the answer is started so long before it: about its time to first sound.
LEAD_MS = 340


@dataclass(frozen=True)
class Wait:
    """How long a silence must last, in ms from where it began.

    Attributes:
        word: the judge's; "plain" where none was asked.
        pause_ms: after this an answer is started on speculation.
        end_ms: after this the turn is over.
    """

    word: Word
    pause_ms: float
    end_ms: float


class TurnListener(Protocol):
    """What a judge knows of one turn."""

    def hear(self, samples: Samples, ids: Sequence[int], /) -> None:
        """The turn has grown by `samples` (float32 [n], 16 kHz) and by these decoder ids."""

    def chance_of_end(self, rest: Sequence[int], /) -> Work[float]:
        """The probability that the turn is over, if it ends in the decoder ids `rest`."""

    def kinds(self, rest: Sequence[int], /) -> Work[Kinds | None]:
        """What the speaker makes in the turn, if it ends in `rest`; None: the judge cannot tell."""


class Judge(Protocol):
    """Tells ends of turns from pauses; shared by all sessions."""

    @property
    def name(self) -> str:
        """For the log and for `aqaa inspect`."""

    @property
    def ask_after_ms(self) -> int:
        """How much quiet it wants to hear before it is asked."""

    def thresholds(self, eagerness: Eagerness, /) -> TurnThresholds:
        """From which probability on it is believed, and how far."""

    def listen(self) -> TurnListener:
        """A listener for one turn."""


def wait_of(chance: float, thresholds: TurnThresholds, eagerness: Eagerness) -> Wait:
    """What silence ends a turn that is over with probability `chance`."""
    if chance >= thresholds.sure:
        return Wait("sure", 0, thresholds.sure_ms)
    if chance >= thresholds.likely:
        return Wait("likely", 0, thresholds.likely_ms)
    if chance >= thresholds.unlikely:
        return Wait("unsure", UNSURE_MS - LEAD_MS, UNSURE_MS)
    longest = LONGEST_MS[eagerness]
    return Wait("unlikely", longest - LEAD_MS, longest)
