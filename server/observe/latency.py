"""Where a turn's heard latency goes.

Heard latency runs from the last sample of the user's speech to the first sound of the answer. Its
stages, in order, each counted only from where the one before it ended *and* the turn was over, so
that they add up to the whole, and work done while the user still spoke or paused costs nothing:

    turn_end      waiting until the silence is long enough (the client's setting)
    tokenise      the rest of the question's audio tokens
    first_token   prefill and the decoder's first id
    first_group   the ids up to the first whole group of audio
    first_sound   the vocoder's first chunk
    send          from there to the socket
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

STAGES = ("turn_end", "tokenise", "first_token", "first_group", "first_sound", "send")


@dataclass
class Timeline:
    """When each stage of a turn ended, in seconds of one clock; None: not yet."""

    speech_end: float | None = None
    turn_end: float | None = None
    tokenise: float | None = None
    first_token: float | None = None
    first_group: float | None = None
    first_sound: float | None = None
    send: float | None = None

    def stages(self) -> dict[str, float]:
        """Milliseconds of each stage, and their `total`; empty before the first sound was sent."""
        if self.send is None or self.speech_end is None:
            return {}
        stages = dict.fromkeys(STAGES, 0.0)
        reached = self.speech_end
        for name, since, reached in self.intervals(self.speech_end):
            stages[name] = (reached - since) * 1000
        stages["total"] = (reached - self.speech_end) * 1000
        return stages

    def intervals(self, begin: float) -> Iterator[tuple[str, float, float]]:
        """Each stage that has ended, in order: its name, from when and until when it counts."""
        reached = begin
        for name in STAGES:
            ended: float | None = getattr(self, name)
            if ended is not None:
                until = max(reached, ended)
                yield name, reached, until
                reached = until
