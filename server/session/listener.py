"""Which of a session's answers somebody can be hearing: one at a time, and one a second at most.

A client may ask for many at once, or for the next while one is played: a script, or somebody who
means harm. What nobody can be hearing yet is made behind all work that is heard or waited for, so
that a session's answers take no more from the others than one conversation's, whatever it asks for.
"""

from __future__ import annotations

import asyncio

from aqaa.server.answering.answer import Answer
from aqaa.server.clock import Clock

ANSWER_SECONDS = 1.0  # nobody asks for answers faster and listens to them


class Listener:
    """One session's."""

    def __init__(self, clock: Clock) -> None:
        """`clock`: that of the answers' playback."""
        self._clock = clock
        self._heard: Answer | None = None  # while it is made
        self._next: Answer | None = None  # the conversation's newest, until it may be heard
        self._line: list[Answer] = []  # others, oldest first
        self._again = 0.0  # when the next of the conversation may be heard
        self._free = 0.0  # when the next of the others may be
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, answer: Answer, *, of_conversation: bool) -> None:
        """The client wants this answer.

        One of the conversation overtakes the others, and whatever is heard or still played: its
        listener has spoken over that, or goes on from it.
        """
        if of_conversation:
            self._next = answer
        else:
            self._line.append(answer)
        self._go_on()
        answer.adopt(patient=answer is not self._heard)

    def leave(self, answer: Answer) -> None:
        """The answer is over, or was stopped."""
        if answer is self._next:
            self._next = None
        elif answer in self._line:
            self._line.remove(answer)
        elif answer is self._heard:
            self._heard = None
            if answer.over:
                self._free = max(self._free, answer.progress.playback.runs_out or 0.0)
        self._go_on()

    def _go_on(self) -> None:
        """Let the next one be heard, or look again when it may be."""
        if self._timer is not None:
            self._timer.cancel()  # it would keep the session
            self._timer = None
        now = self._clock()
        if self._next is not None:
            due = self._again
        elif self._line and self._heard is None:
            due = self._free
        else:
            return
        if now < due:
            self._timer = asyncio.get_running_loop().call_later(due - now, self._go_on)
            return
        self._free = now + ANSWER_SECONDS
        if self._next is not None:
            self._heard, self._next, self._again = self._next, None, self._free
        else:
            self._heard = self._line.pop(0)
        self._heard.hurry()
