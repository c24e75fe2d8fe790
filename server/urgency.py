"""What goes first wherever work waits: a deadline, shifted by the kind of the work.

The shift says how much later than its deadline a kind of work may come before somebody is harmed
as much as by a gap in an answer's sound. The executor of `server/compute` orders its work by this
rule alone, and so does the embedded engine.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What becomes of work that comes too late."""

    LIVE = "live"  # somebody hears a gap
    FIRST = "first"  # somebody waits: a wanted answer's first sound, what a microphone just sent
    SPECULATIVE = "speculative"  # nothing: nobody has asked for it yet
    BULK = "bulk"  # a download takes longer: REST answers, whole recordings, transcripts

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it now."""
        return self in (Kind.LIVE, Kind.FIRST)

    @property
    def company(self) -> Kind:
        """Work of equal company may be computed together: each makes the others wait for it."""
        return Kind.LIVE if self.wanted else self


# Silence before an answer is heard less than a gap within one. A speculation comes after all sound
# that is due within a second, but before what is made further ahead of its playing: most of them
# are wanted a moment later. Bulk work comes last; but whatever has waited for half a minute gets
# its turn.
SHIFT_SECONDS = {Kind.LIVE: 0.0, Kind.FIRST: 0.2, Kind.SPECULATIVE: 1.0, Kind.BULK: 30.0}


def urgency(kind: Kind, deadline: float) -> float:
    """When the work is due, in seconds of the deadline's clock; the least goes first."""
    return deadline + SHIFT_SECONDS[kind]
