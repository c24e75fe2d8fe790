"""What of a conversation that outgrows its room stays in the prompt.

Whenever it is too long as an answer is asked for, old turns are given up until only the wanted part
of the room is taken: first they lose their audio and keep their words (the Step-Audio report counts
14 ids of speech to one of its text), then the oldest are left out, an answer with its question.
What was given up stays given up, so that until the next time the prompt only grows at its end, and
the prefix that the engine has computed stays valid. Nothing of this is remembered between prompts:
it follows from the turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aqaa.models.errors import PromptError

AUDIO_KEPT_TURNS = 2  # before the last user turn; these keep their audio as long as possible


@dataclass(frozen=True, slots=True)
class Truncation:
    """How a conversation that is too long is cut.

    Attributes:
        retained: the part of the room that is still taken after a cut, 0 to 1; None: nothing may
            be cut.
        most: ids of the turns behind the instructions; None: as many as the budget has room for.
    """

    retained: float | None = 0.75
    most: int | None = None


AUTO = Truncation()


@dataclass(frozen=True, slots=True)
class TurnSize:
    """How many ids a turn takes.

    Attributes:
        whole: with all that it has.
        shorter: without its audio; as many as `whole` where it cannot do without.
        follows: whether it means nothing without the turn before it, as an answer.
    """

    whole: int
    shorter: int
    follows: bool


@dataclass
class Kept:
    """What is kept of some turns.

    Attributes:
        dropped: how many of the first are left out.
        worded: how many of the first, these among them, have no audio.
    """

    turns: Sequence[TurnSize]
    dropped: int = 0
    worded: int = 0
    size: int = field(default=0, init=False)

    def add(self, place: int) -> None:
        """The turn at `place` follows, whole."""
        self.size += self.turns[place].whole

    def cut(self, last: int, aim: int) -> None:
        """Give up turns before `last` until `aim` ids are left, if there are so many to give."""
        while self.size > aim and self.worded < last - AUDIO_KEPT_TURNS:
            self._word()
        while self.dropped < last and (self.size > aim or self._begins_with_an_orphan()):
            self._drop()

    def _begins_with_an_orphan(self) -> bool:
        return self.dropped > 0 and self.turns[self.dropped].follows

    def _word(self) -> None:
        turn = self.turns[self.worded]
        self.size -= turn.whole - turn.shorter
        self.worded += 1

    def _drop(self) -> None:
        turn = self.turns[self.dropped]
        self.size -= turn.shorter if self.dropped < self.worded else turn.whole
        self.dropped += 1
        self.worded = max(self.worded, self.dropped)


def truncated(turns: Sequence[TurnSize], room: int, how: Truncation) -> Kept:
    """What is kept of `turns`, oldest first, the instructions not among them, in `room` ids.

    Raises:
        PromptError: even the last turn is too long, or nothing may be cut.
    """
    room = room if how.most is None else min(room, how.most)
    kept = Kept(turns)
    for place, turn in enumerate(turns):
        kept.add(place)
        is_asked = not turn.follows or place == len(turns) - 1
        if is_asked and kept.size > room and how.retained is not None:
            question = next(k for k in range(place, -1, -1) if k == 0 or not turns[k].follows)
            kept.cut(question, int(room * how.retained))
            if kept.size > room:  # the results of calls alone are too long with their question
                kept.cut(place, room)
    if kept.size > room:
        left = "all" if how.retained is None else "only its last turn"
        raise PromptError(
            f"the conversation is {kept.size - room} ids over its room of {room} with {left} of it"
            " left: shorten the turn or the instructions"
        )
    return kept
