"""How many tokens a client's texts have: those of long ones are counted off the event loop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import work_of
from aqaa.server.protocol.limits import Limits, UncountedError
from aqaa.server.urgency import Kind

SHORT = 4000  # characters that are counted at once, in less than a millisecond
REMEMBERED = 4  # long texts of a session: instructions and tools, its own and a response's


class TextCounts:
    """One session's."""

    def __init__(self, limits: Limits, executor: Executor) -> None:
        """Count as `limits` do, in `executor`."""
        self.limits = replace(limits, count_tokens=limits.count_tokens and self._count)
        self._plain: Callable[[str], int] = limits.count_tokens or len
        self._executor = executor
        self._known: OrderedDict[str, int] = OrderedDict()

    async def learn(self, text: str) -> None:
        """Count it, off the event loop, and remember that for a while."""
        work = work_of(lambda: self._plain(text))
        self._known[text] = await self._executor.run(work, Kind.BULK)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def _count(self, text: str) -> int:
        if len(text) <= SHORT:
            return self._plain(text)
        if text not in self._known:
            raise UncountedError(text)
        return self._known[text]
