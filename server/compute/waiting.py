"""How many conversations a machine serves well: by how long one waits for the work of the others.

The wait that counts is that of an answer's first sound. What else there is to do is due later, and
whoever waits for a first sound hears every tenth of a second of it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

BUSY = 0.7  # of a device's time: more, and what waits for its turn waits long
RARELY = 0.05  # share of what may be later than promised: promised is a 95th percentile
# By which a first sound may come late for the others: a quarter of what it takes at worst alone.
LATE_SECONDS = 0.1


@dataclass(frozen=True)
class Share:
    """What one conversation takes of one device.

    Attributes:
        load: in seconds of a server for each second, while both sides speak at once.
        chain: seconds of a server between a pause and the answer's first sound; also taken for what
            the others' work comes in.
        servers: that the device has: a CPU's cores, else one.
    """

    load: float
    chain: float
    servers: int = 1

    def fits(self) -> float:
        """Conversations that have room in `BUSY` of the device's time."""
        return self.servers * BUSY / self.load if self.load else math.inf

    def wait(self, conversations: int) -> float:
        """Seconds for which one of so many waits for the others, at most, but for `RARELY`.

        Work that comes at random finds all servers busy with a probability P, and waits then for a
        time that is distributed exponentially, with mean `chain / (servers * (1 - busy))`. P is
        Erlang's, nearly, as `busy ** (sqrt(2 * (servers + 1)) - 1)` (Sakasegawa 1977). Servers help
        one another: two cores make one wait long when they are busy for half of their time, sixteen
        at seven tenths do not.
        """
        busy = (conversations - 1) * self.load / self.servers
        if busy >= 1:
            return math.inf
        waits = busy ** (math.sqrt(2 * (self.servers + 1)) - 1)
        if waits <= RARELY:
            return 0.0
        return self.chain / (self.servers * (1 - busy)) * math.log(waits / RARELY)


def conversations_served(shares: Iterable[Share], most: int) -> int:
    """The most conversations, up to `most`, of which none waits longer than `LATE_SECONDS`."""
    shares = list(shares)
    room = math.floor(min([most, *(share.fits() for share in shares)]))
    return bisect_right(
        range(1, room + 1),
        LATE_SECONDS,
        key=lambda count: sum(share.wait(count) for share in shares),
    )
