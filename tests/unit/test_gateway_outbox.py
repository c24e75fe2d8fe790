"""What waits for a slow client: void sound is dropped, what is news overtakes, order else stays."""

from __future__ import annotations

import asyncio

from aqaa.server.gateway.outbox import Outbox, Outgoing
from aqaa.server.gateway.outlet import OutboxOutlet
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import (
    Message,
    OutputSound,
    PcmFormat,
    Response,
    ResponseAudio,
    ResponseOutputAudio,
)


def delta(number: int, item: str = "item_a") -> server.ResponseOutputAudioDelta:
    return server.ResponseOutputAudioDelta(
        event_id=f"delta {number} of {item}", response_id="resp", item_id=item, delta="AAAA"
    )


def sound_done(item: str = "item_a") -> server.ResponseOutputAudioDone:
    return server.ResponseOutputAudioDone(
        event_id=f"done of {item}", response_id="resp", item_id=item
    )


SPEECH = server.InputAudioBufferSpeechStarted(event_id="speech", audio_start_ms=0, item_id="user")
ADDED = server.ConversationItemAdded(
    event_id="added",
    previous_item_id=None,
    item=Message(id="item_a", role="assistant", content=[OutputSound()]),
)


def over(status: str, item: str = "item_a") -> server.ResponseDone:
    output = Message(id=item, role="assistant", content=[OutputSound()])
    response = Response.model_validate(
        {
            "id": "resp",
            "status": status,
            "output": [output],
            "output_modalities": ["audio"],
            "audio": ResponseAudio(output=ResponseOutputAudio(format=PcmFormat(), voice="joe")),
        }
    )
    return server.ResponseDone(event_id=status, response=response)


async def waiting(outbox: Outbox) -> list[str]:
    """The ids of the events that wait, in the order in which they would leave."""
    ids = []
    while True:
        try:
            async with asyncio.timeout(0.01):
                message = await outbox.get()
        except TimeoutError:
            return ids
        ids.append(message.text.split('"event_id":"')[1].split('"')[0])
        outbox.sent(message)


def outlet() -> tuple[OutboxOutlet, Outbox]:
    outbox = Outbox(1_000_000)
    return OutboxOutlet(outbox, speaks_beta=False), outbox


async def test_speech_overtakes_the_sound_that_waits() -> None:
    out, outbox = outlet()
    for event in (ADDED, delta(1), delta(2), SPEECH):
        out.send(event)
    assert await waiting(outbox) == ["added", "speech", "delta 1 of item_a", "delta 2 of item_a"]


async def test_nothing_overtakes_what_is_no_piece_of_an_answer() -> None:
    out, outbox = outlet()
    for event in (delta(1), sound_done(), SPEECH):
        out.send(event)
    assert await waiting(outbox) == ["delta 1 of item_a", "done of item_a", "speech"]


async def test_a_cancelled_answers_sound_is_dropped_and_its_end_is_told() -> None:
    out, outbox = outlet()
    for event in (ADDED, delta(1), delta(2), SPEECH, sound_done(), over("cancelled")):
        out.send(event)
    assert await waiting(outbox) == ["added", "speech", "done of item_a", "cancelled"]
    await outbox.drained()


async def test_a_complete_answer_that_is_cut_loses_what_waits_of_it_and_no_other() -> None:
    out, outbox = outlet()
    for event in (delta(1), delta(1, "item_b"), sound_done(), over("completed")):
        out.send(event)
    out.drop("item_a")
    assert await waiting(outbox) == ["delta 1 of item_b", "done of item_a", "completed"]


async def test_what_is_dropped_makes_room() -> None:
    outbox = Outbox(1000)
    for _ in range(20):
        outbox.put(Outgoing("x" * 400, delta_of="item_a"))
        outbox.put(Outgoing("x" * 400, delta_of="item_a"))
        outbox.drop("item_a")
    assert not outbox.overflowed.is_set()
    await outbox.drained()


async def test_only_what_leaves_counts_as_having_left() -> None:
    out, outbox = outlet()
    left: list[str] = []
    out.send(delta(1), lambda: left.append("first"))
    out.send(delta(2), lambda: left.append("second"))
    message = await outbox.get()
    outbox.sent(message)
    out.drop("item_a")
    await waiting(outbox)
    assert left == ["first"]
