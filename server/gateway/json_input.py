"""JSON from clients: bounded in time, never parsed on the event loop when it is long."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np
from pydantic_core import from_json

from aqaa.server.protocol.errors import ProtocolError

P = ParamSpec("P")
T = TypeVar("T")

LONG = 64 * 1024  # bytes or characters; what is shorter takes less time than a change of thread
MOST_VALUES = 50_000  # values in one long message: each costs time and memory, unlike a long string
SLICE = 1 << 20  # bytes that are looked through at once
REST = 9.0  # of the time that reading a long input took, before the next one


def parse_json(data: str | bytes) -> object:
    """The value that a client's JSON says.

    Raises:
        ProtocolError: it is not JSON, holds a number that is not finite or a lone surrogate, or has
            too many values.
    """
    if len(data) > LONG and _values(data) > MOST_VALUES:
        raise ProtocolError("invalid_json", f"a message may hold {MOST_VALUES} values")
    mark = "\ufeff" if isinstance(data, str) else b"\xef\xbb\xbf"
    data = data.removeprefix(mark)  # type: ignore[arg-type]  # that some editors and shells write
    try:
        # Not json.loads: this parser refuses lone surrogates, which cannot be encoded in an answer.
        value: object = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise ProtocolError("invalid_json", f"the message is not JSON: {error}") from None
    if not _is_finite(value):  # 1e999
        raise ProtocolError("invalid_json", "the message holds a number that is not finite")
    return value


class Reader:
    """One thread for the long inputs of all clients, at work for a tenth of the time at most.

    Parsing holds the interpreter, which every chunk of sound needs a thousand times: behind five
    such threads nano's took a quarter of a second instead of 60 ms.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`clock` tells seconds, `sleep` lets so many pass."""
        self._clock = clock
        self._sleep = sleep
        self._thread = ThreadPoolExecutor(1, "reader")
        self._rests_until = clock()

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, after what was asked for before."""
        work = partial(copy_context().run, work)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._read, work)

    def _read(self, work: Callable[[], T]) -> T:
        self._sleep(max(0.0, self._rests_until - self._clock()))
        began = self._clock()
        try:
            return work()
        finally:
            now = self._clock()
            self._rests_until = now + REST * (now - began)


_reader = Reader()


async def off_the_loop(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` gives for an input of this size: computed in a thread if that is long, after
    the long inputs that came before."""
    if size <= LONG:
        return function(*args, **kwargs)
    return await _reader.run(partial(function, *args, **kwargs))


def _values(data: str | bytes) -> int:
    """At most so many values does the text hold, without reading it or holding the interpreter."""
    text = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    characters = np.frombuffer(text, np.uint8)
    pieces = (characters[at : at + SLICE] for at in range(0, len(text), SLICE))
    # "[" and "{" differ in one bit
    return sum(
        int(np.count_nonzero((piece == ord(",")) | ((piece | 0x20) == ord("{"))))
        for piece in pieces
    )


def _is_finite(value: object) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, float) and not math.isfinite(one):
            return False
    return True
