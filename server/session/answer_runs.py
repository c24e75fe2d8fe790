"""One session's answers while they are given: from the prompt to the last of their sound.

The answer to the turn that goes on may be there already (`head_start`): then it is taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aqaa.models.errors import AqaaError
from aqaa.server.answering.answer import Answer
from aqaa.server.answering.answer_events import (
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerSound,
    AnswerText,
)
from aqaa.server.answering.error_code import error_code
from aqaa.server.hearing.input_queue import InputJob, SuppressIdle
from aqaa.server.observe.logs import response_id
from aqaa.server.parts import ModelParts, wire_audio
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.head_start import HeadStart, request_of, start_answer
from aqaa.server.session.interruptions import Interruptions
from aqaa.server.session.kept_sounds import KeptSounds
from aqaa.server.session.listener import Listener
from aqaa.server.session.memory import Memory
from aqaa.server.session.outlet import Outlet
from aqaa.server.session.sound_count import count_sound

log = logging.getLogger(__name__)


class AnswerRuns:
    """Starts and stops them, and reports what they bring.

    Attributes:
        head_start: what is computed for an answer before it is asked for.
        speech_end: when the speech ended to which the next answer is the answer.
        turn_end: when its turn did.
    """

    def __init__(
        self,
        parts: ModelParts,
        key: str,
        memory: Memory,
        sounds: KeptSounds,
        interruptions: Interruptions,
        outlet: Outlet,
        *,
        session: Callable[[], Session],
        next_run: Callable[[], fx.StartRun],
        hear: Callable[[InputJob], None],
        report: Callable[[fx.Input, Callable[[], None] | None], None],
    ) -> None:
        """None yet.

        Args:
            parts: the server's.
            key: the engine's session key.
            memory: the session's.
            sounds: the session's; for what is sent of answers.
            interruptions: the session's.
            outlet: takes what is not the machine's to tell.
            session: its settings of now.
            next_run: see `HeadStart`.
            hear: takes jobs for the speech input.
            report: takes inputs of the machine, and what to do once their sound has left.
        """
        self._parts = parts
        self._services = parts.services
        self._clock = parts.services.clock
        self._key = key
        self._memory = memory
        self._sounds = sounds
        self._interruptions = interruptions
        self._outlet = outlet
        self._session = session
        self._hear = hear
        self._report = report
        self.head_start = HeadStart(
            parts,
            key,
            memory,
            next_run=next_run,
            answering=self.answers_conversation,
            dispose=lambda answer: self._clean_up(answer, None),
        )
        self.speech_end: float | None = None
        self.turn_end: float | None = None
        self._answers: dict[str, Answer] = {}  # by item id, while some of it may be unheard
        self._runs: dict[str, asyncio.Task[None]] = {}  # by response id
        self._default_run: str | None = None
        self._listener = Listener(self._clock)
        self._cleaning: set[asyncio.Task[None]] = set()

    def answers_conversation(self) -> bool:
        """Whether an answer of the conversation is in progress."""
        return self._default_run is not None

    def heard_ms(self, item_id: str) -> int | None:
        """How much of an answer has been heard by now; None: all of it, or it is unknown."""
        answer = self._answers.get(item_id)
        if answer is None:
            return None
        now, left = self._clock(), answer.progress.left
        if answer.over and not self.sound_waits(item_id) and left.ahead(now) <= 0:
            return None
        return int(left.heard(now) * 1000)

    def sound_waits(self, item_id: str) -> bool:
        """Whether sound of an answer waits to be sent."""
        answer = self._answers.get(item_id)
        return answer is not None and answer.progress.left.sent < answer.progress.playback.sent

    def start(self, run: fx.StartRun) -> None:
        """Give this answer."""
        if run.default:
            self._default_run = run.response_id
            self.turn_end = self.turn_end or self._clock()
            self._hear(SuppressIdle(None))
        task = asyncio.create_task(self._give_answer(run))
        self._runs[run.response_id] = task
        task.add_done_callback(lambda _: self._runs.pop(run.response_id, None))

    def stop(self, response: str) -> None:
        """Nobody wants more of this answer."""
        task = self._runs.pop(response, None)
        if task is not None:
            task.cancel()
            self._clean(task)
        if self._default_run == response:
            self._default_run = None
            self.head_start.roll_back("abandoned")  # if the run had not come to take it yet
            self._hear(SuppressIdle(0.0))  # its sound is no longer played

    def forget(self, item_id: str) -> None:
        """The item of an answer left the conversation."""
        self._answers.pop(item_id, None)

    async def idle(self) -> None:
        """Wait until no answer is in progress."""
        while self._runs:
            await asyncio.wait(list(self._runs.values()))

    async def stop_all(self) -> None:
        """Stop what is in progress, and begin no more."""
        runs = list(self._runs.values())
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await self.head_start.close()

    async def cleaned_up(self) -> None:
        """Wait until all that was stopped has come to its end."""
        while self._cleaning:
            await asyncio.wait(list(self._cleaning))

    def _clean_up(self, answer: Answer | None, key: str | None) -> None:
        """Stop an answer, and release an engine's session, whatever is cancelled meanwhile."""
        self._clean(asyncio.create_task(self._put_away(answer, key)))

    def _clean(self, task: asyncio.Task[None]) -> None:
        """Let it end by itself; `cleaned_up` waits for it and does not cancel it."""
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _put_away(self, answer: Answer | None, key: str | None) -> None:
        if answer is not None:
            self._listener.leave(answer)  # first: one that is being stopped is nobody's next
            await answer.stop()
        if key is not None:
            await self._services.engine.release(key)

    async def _give_answer(self, run: fx.StartRun) -> None:
        """Give one answer, from the prompt to its end."""
        response_id.set(run.response_id)
        key = self._key if run.default else f"{self._key}/{run.response_id}"
        answer: Answer | None = None
        try:
            own = run.instructions != self._session().instructions
            await self._memory.ready(run.items, asks=not own)
            request = await request_of(self._parts, self._memory, run)
            answer = self.head_start.take(request) if run.default else None
            answer = answer or start_answer(self._parts, key, request, run)
            self._announce(run, answer)
            counted = answer.progress.reused
            while True:
                event = await answer.next()
                if answer.progress.reused != counted:  # known with the first id, or with the last
                    counted = answer.progress.reused
                    self._tell_prompt(run, answer)
                if isinstance(event, AnswerEnd):
                    break
                self._forward(run, answer, event)
            self._end_run(run, answer, event)
        except AqaaError as error:
            log.warning("no answer: %s", error)
            self._end_run(run, answer, AnswerEnd("failed", error_code(error)))
        except Exception:
            log.exception("an answer failed for a reason that is a bug")
            self._end_run(run, answer, AnswerEnd("failed", "internal_error"))
        finally:
            self._clean_up(answer, None if run.default else key)

    def _announce(self, run: fx.StartRun, answer: Answer) -> None:
        self._listener.ask(answer, of_conversation=run.default)
        timeline = answer.progress.timeline
        if run.default:
            timeline.speech_end, self.speech_end = self.speech_end, None
            timeline.turn_end, self.turn_end = self.turn_end, None
        timeline.tokenise = self._clock()
        self._answers = {run.item_id: answer} if run.default else self._answers
        self._memory.answer(run.item_id, answer.progress.ids, run.speed)
        if run.default:
            self._sounds.begin(run.item_id, wire_audio(run.format))
        self._tell_prompt(run, answer)

    def _tell_prompt(self, run: fx.StartRun, answer: Answer) -> None:
        """Tell the machine the prompt's size and, once known, how much of it was cached."""
        kinds, prompt = self._parts.prompts.kinds, answer.request.prompt
        cached = kinds(prompt[: answer.progress.reused])
        self._report(fx.RunStarted(run.response_id, *kinds(prompt), *cached), None)

    def _forward(self, run: fx.StartRun, answer: Answer, event: AnswerEvent) -> None:
        match event:
            case AnswerText():
                start = int(event.start * 1000)
                given: fx.Input = fx.RunText(run.response_id, event.text, event.tokens, start)
                self._report(given, None)
            case AnswerSound():
                data = self._interruptions.sound(run, answer.progress.playback, event.data)
                given = fx.RunSound(run.response_id, data, event.tokens)

                def sound_left() -> None:
                    answer.progress.left.send(event.seconds, self._clock())

                self._sounds.add(run.item_id, [data])
                self._report(given, sound_left)
                self._count_sound(run, answer, event)
            case AnswerCall():
                given = fx.RunCall(run.response_id, event.name, event.arguments, event.tokens)
                self._report(given, None)

    def _count_sound(self, run: fx.StartRun, answer: Answer, sound: AnswerSound) -> None:
        """Count sound that has just been sent."""
        if not sound.data:
            return
        metrics, now = self._services.metrics, self._clock()
        stages = count_sound(metrics, answer.progress, sound, now, heard=not answer.patient)
        if stages and "latency" in self._session().aqaa.extensions:
            self._outlet.send(
                server.LatencyReported(
                    event_id=random_id("event"), response_id=run.response_id, stages=stages
                )
            )

    def _end_run(self, run: fx.StartRun, answer: Answer | None, over: AnswerEnd) -> None:
        if run.default and self._default_run == run.response_id:
            self._default_run = None
            ahead = 0.0 if answer is None else answer.progress.playback.ahead(self._clock())
            self._hear(SuppressIdle(ahead))
        self._runs.pop(run.response_id, None)
        self._services.metrics.answers.labels(over.status).inc()
        self._report(fx.RunEnded(run.response_id, over.status, over.code), None)
