"""How many conversations this machine serves well, by what their work takes on it now.

Two things are measured. What a second of each network's part of a conversation takes, in the
executor and in the engine: more conversations than have room in the processors' time are refused.
And whether what is promised is kept: while deadlines are missed, or the decoder is slower than
speech, nobody else is let in, whatever the sum says.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aqaa.server.compute.model import Model
from aqaa.server.compute.plan import BUSY
from aqaa.server.urgency import Kind

WINDOW_SECONDS = 20.0  # after which a missed deadline is forgotten: a few turns of a conversation
LEAST_JOBS = 10  # of a kind within the window: fewer tell nothing
PUNCTUAL = 0.9  # the least share of deadlines that are met where one more conversation may begin
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


@dataclass(frozen=True)
class Need:
    """A model that a conversation needs: calls a second, and the device that computes them."""

    model: Model[Any, Any]
    calls: float
    device: str


class Places:
    """How many conversations may be open at once."""

    def __init__(
        self,
        cores: int,
        needs: Sequence[Need],
        seconds: Callable[[Model[Any, Any]], float],
        decoding: Callable[[], float],
        punctuality: Punctuality,
        pace: IdPace,
    ) -> None:
        """Take measurements from where they are made.

        Args:
            cores: of the CPU; any other device is one.
            needs: of one conversation in which both sides speak at once, as `aqaa plan` reckons.
            seconds: what a call of a model takes now (`Executor.seconds`).
            decoding: core-seconds that the decoder takes for a second of an answer; 0 where it
                computes elsewhere.
            punctuality: fed by the executor.
            pace: fed by the answers.
        """
        self._cores = cores
        self._needs = needs
        self._seconds = seconds
        self._decoding = decoding
        self._punctuality = punctuality
        self._pace = pace

    def offered(self, inside: int, least: int, most: int) -> int:
        """Places, from `least` to `most`, while `inside` are taken; `most` wins."""
        fit = min(most, self._fit())
        if self._punctuality.share() < PUNCTUAL or not self._pace.keeps_up():
            fit = min(fit, inside)
        return min(most, max(least, math.floor(fit)))

    def _fit(self) -> float:
        """Conversations that have room in every device's time."""
        each = {CPU: self._decoding()}
        for need in self._needs:
            each[need.device] = each.get(need.device, 0.0) + need.calls * self._seconds(need.model)
        count = {CPU: self._cores}
        rooms = [count.get(device, 1) * BUSY / cost for device, cost in each.items() if cost]
        return min(rooms, default=math.inf)
