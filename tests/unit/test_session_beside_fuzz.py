"""A live conversation beside sessions that send mutated events as fast as they are taken.

In simulated time: one device hears and speaks, another decodes. What the conversation waits for
follows from the order of work.
On real cores: `tests/bench/beside_abuse.py`.
"""

from __future__ import annotations

import asyncio
import base64
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace

from fuzzing import EVENTS_A_SESSION, PACE, Mutator
from paced_parts import AHEAD_SECONDS
from scripted import pcm, scripted_parts, woven
from simulated_time import SimulatedClock, SteppedExecutor, simulate
from slow_models import SlowDecoder, SlowTokenizer, SlowVoices

from aqaa.server.answering.playback import Playback
from aqaa.server.gateway.websocket import _event
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.parts import ModelParts
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.live_session import LiveSession

TURNS = 15
RATE = 24_000
PIECE = 0.02  # seconds of a microphone's
SPOKEN, QUIET = 1.0, 2.5  # seconds of a question, and of the silence in which the answer is heard
SAID = woven("hello there, and a good day", 14)
PLACES = 1  # for those who send mutated events: two cores have two
GROWTH = 0.1  # seconds by which what is heard may come later


class Client:
    """A session, and what it was told."""

    def __init__(
        self, parts: ModelParts, name: str, told: Callable[[server.ServerEvent], None]
    ) -> None:
        self._told = told
        session = Session(id=name, model="scripted", type="realtime")
        self.conversation = LiveSession(parts, session, self)
        self._listening = asyncio.create_task(self.conversation.run())
        self.conversation.open()

    def send(self, event: server.ServerEvent, left: Callable[[], None] | None = None) -> None:
        """The session's outlet: a client that reads at once."""
        self._told(event)
        if left is not None:
            left()

    def room(self) -> int:
        return 8 * 1024 * 1024

    def drop(self, item_id: str) -> None:
        """Nothing waits."""

    async def say(self, message: str) -> None:
        """As the gateway reads it."""
        try:
            event = _event([message], speaks_beta=False)
        except ProtocolError as error:
            self.conversation.refuse(error)
        else:
            await self.conversation.receive(event)

    async def leave(self) -> None:
        self._listening.cancel()
        await self.conversation.close()


async def mutated_session(parts: ModelParts, seed: int, done: Counter[str]) -> None:
    """One session of them, to the end of its answers."""
    mutator, draw = Mutator(seed), random.Random(-seed)
    open_answers: set[str] = set()

    def told(event: server.ServerEvent) -> None:
        match event:
            case server.ResponseCreated():
                mutator.responses.append(str(event.response.id))
                open_answers.add(str(event.response.id))
            case server.ResponseDone():
                open_answers.discard(str(event.response.id))
                done["answers"] += 1

    client = Client(parts, f"mutated-{seed}", told)
    try:
        for count in range(EVENTS_A_SESSION):
            await client.say(mutator.message())
            if count % PACE == 0:
                await asyncio.sleep(draw.choice((0.001, 0.001, 0.005, 0.02)))
        while open_answers:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    finally:
        await client.leave()
    done["sessions"] += 1


async def heard_beside(places: int, done: Counter[str]) -> list[float]:
    """Seconds from the end of each question to the first sound of its answer."""
    clock = SimulatedClock()
    executor, tokenizer = SteppedExecutor(clock), SlowTokenizer(clock)
    executor.compute_on_loop()
    any_text = sys.maxunicode + 1  # its text ids are code points
    engine = SlowDecoder(lambda prompt: SAID, vocab_size=any_text)
    parts = scripted_parts(engine, clock=clock, executor=executor, voices=SlowVoices(clock=clock))
    services = replace(parts.services, ahead_seconds=AHEAD_SECONDS)
    tokenising = Tokenising(tokenizer)
    parts = replace(parts, tokenizer=tokenizer, tokenising=tokenising, services=services)
    sounds = defaultdict[str, Playback](Playback)  # of each answer
    begins: dict[str, float] = {}

    def told(event: server.ServerEvent) -> None:
        if isinstance(event, server.ResponseOutputAudioDelta):
            begins.setdefault(event.response_id, clock())
            seconds = len(base64.b64decode(event.delta)) / 2 / RATE
            sounds[event.response_id].send(seconds, clock())

    async def occupy(place: int) -> None:
        seed = place * 10_000
        while True:
            seed += 1
            await mutated_session(parts, seed, done)

    client = Client(parts, "conversation", told)
    occupied = [asyncio.create_task(occupy(place)) for place in range(places)]
    ends, due = [], clock()
    for _ in range(TURNS):
        for seconds, loud in ((SPOKEN, True), (QUIET, False)):
            data = pcm(seconds, loud=loud)
            size = round(PIECE * RATE) * 2
            for begin in range(0, len(data), size):
                due += PIECE  # a microphone waits for nobody
                await asyncio.sleep(max(0.0, due - clock()))
                sound = base64.b64encode(data[begin : begin + size]).decode()
                await client.say(f'{{"type":"input_audio_buffer.append","audio":"{sound}"}}')
            if loud:
                ends.append(due)
    for task in occupied:
        task.cancel()
    await asyncio.gather(*occupied, return_exceptions=True)
    await client.leave()
    assert [sound.gaps for sound in sounds.values()] == [0] * TURNS
    return [begins[name] - end for name, end in zip(sounds, ends, strict=True)]


def test_it_is_heard_nearly_as_soon_as_alone() -> None:
    done = Counter[str]()
    alone = simulate(heard_beside(0, done))
    assert not done
    beside = simulate(heard_beside(PLACES, done))
    assert max(beside) - max(alone) <= GROWTH
    assert done["answers"] > 10 * TURNS, "hardly any answers were asked for meanwhile"
