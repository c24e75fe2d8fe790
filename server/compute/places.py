"""How many conversations this machine serves well, by what their work takes on it now.

Two things are measured. What a conversation's work takes of each device, in the executor and in the
engine: from that follows how long an answer's first sound waits for the other conversations, and
nobody comes in who would make that too long. And whether what is promised is kept: while deadlines
are missed, or the decoder is slower than speech, nobody else is let in, whatever the sum says.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aqaa.server.compute.waiting import RARELY, Share, conversations_served
from aqaa.server.urgency import Kind

WINDOW_SECONDS = 20.0  # after which a missed deadline is forgotten: a few turns of a conversation
LEAST_JOBS = 10  # of a kind within the window: fewer tell nothing
CPU = "cpu"
NEWEST_ID = 1 / 64  # share of the latest id in the mean pace: two or three blocks of speech


class Punctuality:
    """The share of deadlines that were met lately. For any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` tells seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._lately: dict[str, deque[tuple[float, bool]]] = {
            kind.value: deque() for kind in Kind if kind.wanted
        }

    def batch(self, model: str, size: int, seconds: float) -> None:
        """Nothing: deadlines alone count."""

    def done(self, kind: str, slack: float) -> None:
        """Work of this kind is done, `slack` seconds before it was due (negative: after)."""
        if (lately := self._lately.get(kind)) is not None:
            with self._lock:
                lately.append((self._clock(), slack >= 0))
                self._forget(lately)

    def share(self) -> float:
        """Of the kind of wanted work that fares worst; 1.0 where there was hardly any."""
        with self._lock:
            for lately in self._lately.values():
                self._forget(lately)
            shares = [
                sum(met for _, met in lately) / len(lately)
                for lately in self._lately.values()
                if len(lately) >= LEAST_JOBS
            ]
        return min(shares, default=1.0)

    def _forget(self, lately: deque[tuple[float, bool]]) -> None:
        while lately and lately[0][0] < self._clock() - WINDOW_SECONDS:
            lately.popleft()


class IdPace:
    """How long an answer waits for its next id, whichever engine makes it."""

    def __init__(self, spoken_ids: float) -> None:
        """`spoken_ids`: ids that a second of an answer is made of, its text's included."""
        self._spoken_ids = spoken_ids
        self._seconds = 0.0

    def came(self, waited: float) -> None:
        """An id came, `waited` seconds after it was asked for."""
        self._seconds += NEWEST_ID * (waited - self._seconds)

    def keeps_up(self) -> bool:
        """Whether ids come as fast as they are spoken."""
        return self._seconds * self._spoken_ids <= 1.0


@dataclass(frozen=True, kw_only=True)
class Need:
    """Work of one kind that a conversation needs: calls of a model, or ids of the decoder.

    Attributes:
        cost: seconds of the device that one takes now; 0 before anything was measured.
        each_second: how many a second, while both sides speak at once, as `aqaa plan` reckons.
        before_sound: how many there are between a pause and the answer's first sound.
        device: that computes them.
    """

    cost: Callable[[], float]
    each_second: float
    before_sound: float
    device: str


class Places:
    """How many conversations may be open at once."""

    def __init__(
        self, cores: int, needs: Sequence[Need], punctuality: Punctuality, pace: IdPace
    ) -> None:
        """Take measurements from where they are made.

        Args:
            cores: of the CPU; any other device is one.
            needs: of one conversation.
            punctuality: fed by the executor.
            pace: fed by the answers.
        """
        self._cores = cores
        self._needs = needs
        self._punctuality = punctuality
        self._pace = pace

    def offered(self, inside: int, least: int, most: int) -> int:
        """Places, from `least` to `most`, while `inside` are taken; `most` wins."""
        fit = conversations_served(self._shares(), most)
        if self._punctuality.share() < 1 - RARELY or not self._pace.keeps_up():
            fit = min(fit, inside)
        return min(most, max(least, fit))

    def _shares(self) -> list[Share]:
        """What a conversation takes of each device, as it was measured up to now."""
        load, chain = defaultdict[str, float](float), defaultdict[str, float](float)
        for need in self._needs:
            cost = need.cost()
            load[need.device] += need.each_second * cost
            chain[need.device] += need.before_sound * cost
        return [
            Share(load[device], chain[device], self._cores if device == CPU else 1)
            for device in load
        ]
