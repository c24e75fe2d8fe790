"""One live conversation beside bulk work and speculations, on one thread, by an exact clock.

Models take their time of a clock that nothing else moves, so that what the conversation waits for
follows from the order of work alone. On real cores: `tests/bench/beside_bulk.py`.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace

import numpy as np
from live_talk import FakeClock, Talk
from scripted import ScriptedEngine, pcm, scripted_parts, woven
from simulated_time import SteppedExecutor
from slow_models import SlowTokenizer, SlowVoices

from aqaa.server.answering.answer import Answer, AnswerRequest
from aqaa.server.answering.answer_events import AnswerEnd
from aqaa.server.answering.single_answer import single_answer
from aqaa.server.compute.model import Work
from aqaa.server.dialogue.prompt import UserTurn
from aqaa.server.hearing.no_speech import check_speech
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.parts import output_of
from aqaa.server.protocol.server_events import ResponseOutputAudioDelta as Delta
from aqaa.server.protocol.types import PcmFormat, bytes_per_second
from aqaa.server.urgency import Kind

TURNS = 20  # enough for a 95th percentile
PIECE = 0.02  # seconds of a microphone's
QUIET = 2.5  # seconds for an answer to begin and to be heard
SAID = woven("hello there, and a good day", 14)
GROWTH = 0.1  # seconds by which what is heard may come later
SPECULATIONS, ANSWERS, RECORDING_SECONDS = 8, 4, 60


class Scene:
    """The conversation, and what goes on beside it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.executor = SteppedExecutor(self.clock)
        tokenizer = SlowTokenizer(self.clock)
        self.parts = replace(
            scripted_parts(
                ScriptedEngine(lambda prompt: SAID),
                clock=self.clock,
                executor=self.executor,
                voices=SlowVoices(clock=self.clock),
            ),
            tokenizer=tokenizer,
            tokenising=Tokenising(tokenizer),
        )
        self.talk = Talk(self.parts, self.clock)
        self.heard: list[float] = []  # seconds from the end of speech to the answer's sound
        self._spoken = 0.0  # when the speech ended that is not answered yet
        self._due = self.clock.now  # when the microphone gives its next piece

    async def turns(self, beside: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        """Ask and hear the answer out, again and again; something goes on beside each pause."""
        for _ in range(TURNS):
            await self._say(pcm(1.0, loud=True))
            self._spoken = self._due
            async with beside():
                await self._say(pcm(QUIET, loud=False))

    async def _say(self, data: bytes) -> None:
        size = round(PIECE * 24_000) * 2
        for begin in range(0, len(data), size):
            self._due += PIECE
            await self._compute_until(self._due)
            await self.talk.append(data[begin : begin + size])

    async def _compute_until(self, time: float) -> None:
        """A little longer, perhaps: what has begun is not stopped."""
        while True:
            for _ in range(60):  # what was computed is told, and asks for more
                await asyncio.sleep(0)
            answered = len({e.response_id for e in self.talk.events if isinstance(e, Delta)})
            if answered > len(self.heard):
                self.heard.append(self.clock.now - self._spoken)
            if self.clock.now >= time:
                return
            if not self.executor.step():
                self.clock.now = time


@asynccontextmanager
async def nothing() -> AsyncIterator[None]:
    """No company."""
    yield


@asynccontextmanager
async def bulk_work(scene: Scene, done: Counter[str]) -> AsyncIterator[None]:
    """An upload, REST answers and an inline item, over and over."""
    parts = scene.parts
    recording = np.full(RECORDING_SECONDS * 16_000, 0.3, np.float32)
    long, short = (
        base64.b64encode(pcm(seconds, loud=True)).decode() for seconds in (RECORDING_SECONDS, 1)
    )

    def question() -> Work[None]:
        yield from check_speech(parts.vad.stream(), recording)
        yield from parts.tokenising.encode(recording)

    async def upload() -> None:
        await parts.services.executor.run(question(), Kind.BULK)

    async def answer() -> None:
        async with single_answer(parts, [UserTurn(("hi",))], voice="joe", spoken=True) as said:
            while not isinstance(await said.next(), AnswerEnd):
                pass

    async def item() -> None:
        other = Talk(parts, scene.clock)
        try:
            for sound in (long, short):  # the second waits until there is room for it
                part = {"type": "input_audio", "audio": sound}
                message = {"type": "message", "role": "user", "content": [part]}
                await other.send("conversation.item.create", item=message)
        finally:
            other.listening.cancel()
            await other.conversation.close()

    async def again(work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await work()
            done[work.__name__] += 1

    tasks = [asyncio.create_task(again(one)) for one in (upload, item, *[answer] * ANSWERS)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def speculations(scene: Scene) -> AsyncIterator[None]:
    """Other speakers pause, too; none of their answers is wanted in the end."""
    parts, format = scene.parts, PcmFormat(rate=24_000)
    prompt, params = parts.asked([65], None, None)
    request = AnswerRequest(prompt, params, "joe", 1.0, spoken=True)
    answers = [
        Answer(
            parts.services,
            f"other-{number}",
            request,
            parts.parser(),
            output_of(format),
            bytes_per_second=bytes_per_second(format),
        )
        for number in range(SPECULATIONS)
    ]
    yield
    for answer in answers:
        assert answer.progress.made > 0, "it was not even begun"
        await answer.stop()


def p95(heard: Sequence[float]) -> float:
    return float(np.percentile(heard, 95))


async def test_it_is_heard_as_soon_as_alone_and_without_a_gap() -> None:
    alone, busy = Scene(), Scene()
    await alone.turns(nothing)
    done = Counter[str]()
    async with bulk_work(busy, done):
        await busy.turns(lambda: speculations(busy))
    for scene in (alone, busy):
        assert len(scene.heard) == TURNS
        assert scene.talk.counted("aqaa_underruns_total") == 0
        await scene.talk.close()
    assert p95(busy.heard) - p95(alone.heard) <= GROWTH
    assert set(done) == {"upload", "answer", "item"}, "not all of the work was done meanwhile"
