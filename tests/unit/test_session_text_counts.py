"""Long texts of a client's are counted off the event loop, before what they came with is done."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from live_talk import FakeClock, Talk
from scripted import Letters, scripted_parts

from aqaa.server.protocol import server_events as server
from aqaa.server.session.text_counts import SHORT

LONG = "word " * SHORT
WAYS = {f"way_{number}": {"type": "string"} for number in range(SHORT // 5)}
TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": WAYS}}


class Counting(Letters):
    """A hundredth of the letters; notes where they were counted."""

    def __init__(self) -> None:
        self.counted: list[tuple[int, int]] = []  # characters, and the thread

    def encode(self, text: str) -> list[int]:
        self.counted.append((len(text), threading.get_ident()))
        return super().encode(text[::100])


@pytest.fixture
def text() -> Counting:
    return Counting()


@pytest.fixture
async def talk(text: Counting) -> AsyncIterator[Talk]:
    clock = FakeClock()
    talk = Talk(replace(scripted_parts(clock=clock), text=text), clock)
    yield talk
    await talk.close()


async def test_long_instructions_and_tools_are_counted_once_and_never_on_the_event_loop(
    talk: Talk, text: Counting
) -> None:
    session = {"type": "realtime", "instructions": LONG, "tools": [TOOL]}
    for _ in range(2):
        await talk.send("session.update", session=session)
    await talk.until("session.updated", 2)
    assert len([size for size, _ in text.counted if size > SHORT]) == 2
    assert threading.get_ident() not in {where for size, where in text.counted if size > SHORT}


async def test_too_much_is_refused_as_ever(talk: Talk) -> None:
    await talk.send("session.update", session={"type": "realtime", "instructions": "x" * 200_000})
    error = await talk.until("error")
    assert isinstance(error, server.ErrorEvent)
    assert error.error.code == "string_above_max_length"
