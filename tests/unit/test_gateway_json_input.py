"""Long JSON is parsed beside the event loop, one client's at a time."""

from __future__ import annotations

import asyncio
import json
import threading
from functools import partial

import pytest

from aqaa.server.gateway.json_input import (
    LONG,
    MOST_VALUES,
    Reader,
    off_the_loop,
    parse_json,
)
from aqaa.server.protocol.errors import ProtocolError


async def test_long_inputs_of_several_clients_are_read_one_after_the_other() -> None:
    release = threading.Event()

    def read() -> int:
        release.wait()
        return threading.get_ident()

    reading = [asyncio.create_task(off_the_loop(LONG + 1, read)) for _ in range(4)]
    await asyncio.sleep(0)  # all of them are asked for
    release.set()
    readers = set(await asyncio.gather(*reading))
    assert len(readers) == 1
    assert readers != {threading.get_ident()}


async def test_between_two_long_inputs_the_reader_rests_for_nine_times_as_long_as_it_read() -> None:
    now = [1000.0]
    rested: list[float] = []
    reader = Reader(lambda: now[0], rested.append)

    def read(seconds: float) -> None:
        now[0] += seconds

    for seconds in (0.1, 0.2):
        await reader.run(partial(read, seconds))
    now[0] += 60.0
    await reader.run(partial(read, 0.1))
    assert rested == pytest.approx([0.0, 0.9, 0.0])


async def test_a_short_input_does_not_wait_for_a_long_one() -> None:
    release = threading.Event()
    reading = asyncio.create_task(off_the_loop(LONG + 1, release.wait))
    await asyncio.sleep(0)
    assert await off_the_loop(LONG, threading.get_ident) == threading.get_ident()
    release.set()
    await reading


@pytest.mark.parametrize("opening", ["", "[", '{"é":'])
@pytest.mark.parametrize("encode", [str, str.encode])
def test_a_long_message_may_hold_so_many_values(opening: str, encode: type[str]) -> None:
    closing = {"": "", "[": "]", '{"é":': "}"}[opening]
    one = f"{opening}1{closing}"
    most = (MOST_VALUES - 1) // (1 + bool(opening))
    text = encode(f"[{','.join([one] * most)}, {json.dumps('é' * LONG)}]")
    assert isinstance(parse_json(text), list)
    with pytest.raises(ProtocolError, match=f"may hold {MOST_VALUES} values"):
        parse_json(encode(f"[{','.join([one] * (most + 2))}, {json.dumps('é' * LONG)}]"))
