"""The turn controller: one session's machine, ears and answers, held together on the event loop.

    socket ─> receive ─> machine ─┬─> events ─> socket
                 ▲                └─> effects: hear, commit, start, stop, cut
                 │
       ears and answers report back

Nothing here waits inside a reaction: whatever the machine says is carried out at once, so there is
one order of events and no lock. Model work is in the workers and the engine.

Speculation: at a pause the answer is started as if the turn were over, and held back. If the turn
is over, what was asked is compared with what the machine now asks, and an equal answer is adopted;
if the user goes on, it is stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AqaaError, AudioError
from aqaa.server.answering.answer import (
    Answer,
    AnswerEnd,
    AnswerEvent,
    AnswerRequest,
    Sound,
    Text,
    error_code,
)
from aqaa.server.hearing import ears as hear
from aqaa.server.hearing.listening import (
    ClearBuffer,
    CommitBuffer,
    ConfigureEars,
    Hear,
    Listening,
    SuppressIdle,
    Tokenise,
)
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.observe.latency import STAGES
from aqaa.server.observe.logs import response_id
from aqaa.server.parts import ModelParts, input_of, output_of
from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.machine import SessionMachine
from aqaa.server.protocol.types import Json, Session, bytes_per_ms
from aqaa.server.session.memory import Memory

log = logging.getLogger(__name__)


class LiveSession:
    """One session, from `open` to `close`. `run` must be running for it to hear anything."""

    def __init__(
        self, parts: ModelParts, session: Session, send: Callable[[server.ServerEvent], None]
    ) -> None:
        """`send` takes what goes to the client; it must not wait.

        Raises:
            ProtocolError: the session's settings name a voice that there is not.
        """
        self._parts = parts
        self._services = parts.services
        self._clock = parts.services.clock
        self._send = send
        self._key = session.id
        self._machine = SessionMachine(session, parts.voices)
        self._memory = Memory(parts.bundle.tokens, parts.text)
        audio = self._machine.session.audio.input
        self._input_format = audio.format
        self._carry = b""  # the first byte of a sample that was cut by the client's chunking
        ears = hear.Ears(
            parts.tokenizer,
            parts.vad.stream(),
            input_of(audio.format),
            TurnRules.of(audio.turn_detection) if audio.turn_detection else None,
            parts.max_turn_seconds,
        )
        self._listening = Listening(
            ears,
            parts.services.workers,
            parts.services.clock,
            heard=self._heard,
            tokenised=self._memory.store,
            unusable=self._unusable,
        )
        self._epoch = 0
        self._turn: tuple[int, ...] | None = None  # tokens of the turn that ends just now
        self._speech_end: float | None = None
        self._turn_end: float | None = None
        self._speculation: Answer | None = None
        self._answers: dict[str, Answer] = {}  # by item id, while something of them may be unheard
        self._runs: dict[str, asyncio.Task[None]] = {}  # by response id
        self._default_run: str | None = None
        self._warming: asyncio.Task[None] | None = None
        self._warm_tokens: tuple[int, ...] | None = None
        self._cleaning: set[asyncio.Task[None]] = set()

    # --- the socket's side ------------------------------------------------------------------------

    def open(self) -> None:
        """Say hello."""
        self._apply(self._machine.open())

    async def run(self) -> None:
        """Listen, until cancelled."""
        await self._listening.run()

    async def receive(self, message: Json) -> None:
        """A client's message. Waits only while more audio is waiting than may."""
        try:
            event = client.parse_client_event(message)
        except ProtocolError as error:
            self.refuse(error)
            return
        self._apply(self._machine.on_client(event))
        await self._listening.room()

    def refuse(self, error: ProtocolError) -> None:
        """Tell the client that its message was no good."""
        self._apply(self._machine.refuse(error))

    async def idle(self) -> None:
        """Wait until no answer is being given."""
        while self._runs:
            await asyncio.wait(list(self._runs.values()))

    async def close(self) -> None:
        """Stop everything and give everything back."""
        tasks = [*self._runs.values(), *self._cleaning]
        if self._warming is not None:
            tasks.append(self._warming)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._speculation is not None:
            await self._speculation.stop()
        await self._services.engine.release(self._key)

    # --- what the machine wants -------------------------------------------------------------------

    def _apply(self, outputs: list[Output]) -> None:
        for output in outputs:
            if isinstance(output, server.FromServer):
                self._send(output)
            else:
                self._carry_out(output)

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Append():
                self._hear(effect.data)
            case fx.Commit():
                self._commit(effect.item_id)
            case fx.Clear():
                self._new_epoch()
                self._listening.put(ClearBuffer())
            case fx.Configure():
                self._configure(effect.session)
            case fx.StoreAudio():
                self._memory.expect(effect.item_id)
                job = Tokenise(effect.item_id, effect.data, input_of(self._input_format))
                self._listening.put(job)
            case fx.StartRun():
                self._start(effect)
            case fx.StopRun():
                self._stop(effect.response_id)
            case fx.CutAtPlayhead():
                self._cut_at_playhead(effect.item_id)
            case fx.CutItem():
                self._memory.cut(effect.item_id, effect.audio_end_ms)
            case fx.ForgetItem():
                self._memory.forget(effect.item_id)
                self._answers.pop(effect.item_id, None)

    def _hear(self, data: bytes) -> None:
        data = self._carry + data
        whole = len(data) - len(data) % (2 if self._input_format.type == "audio/pcm" else 1)
        self._carry = data[whole:]
        self._listening.put(Hear(data[:whole], self._clock(), self._epoch))

    def _commit(self, item_id: str) -> None:
        if self._turn is not None:  # the ears ended the turn, and know its tokens already
            self._memory.store(item_id, self._turn)
            self._turn = None
            return
        self._new_epoch()
        self._speech_end = self._clock()
        self._memory.expect(item_id)
        self._listening.put(CommitBuffer(item_id))

    def _new_epoch(self) -> None:
        """The client said what becomes of the buffer: forget what the ears made of it so far."""
        self._epoch += 1
        self._warm_tokens = None
        self._roll_back("abandoned")

    def _configure(self, session: Session) -> None:
        audio = session.audio.input
        converter = None
        if audio.format != self._input_format:
            converter, self._input_format, self._carry = input_of(audio.format), audio.format, b""
        rules = TurnRules.of(audio.turn_detection) if audio.turn_detection else None
        self._listening.put(ConfigureEars(converter, rules))

    def _cut_at_playhead(self, item_id: str) -> None:
        answer = self._answers.get(item_id)
        if answer is None:
            return
        now = self._clock()
        playback = answer.progress.playback
        if answer.over and playback.ahead(now) <= 0:
            return  # it was heard to its end
        self._services.metrics.interruptions.inc()
        self._apply(self._machine.cut(item_id, int(playback.heard(now) * 1000)))

    # --- what the ears heard ----------------------------------------------------------------------

    def _heard(self, heard: hear.Heard, job: Hear) -> None:
        if job.epoch != self._epoch:
            return
        match heard:
            case hear.Started():
                self._apply(self._machine.on_input(fx.SpeechStarted(_ms(heard.sample))))
            case hear.Spoken():
                self._warm(heard.tokens)
            case hear.Paused():
                self._speculate(heard.tokens)
            case hear.WentOn():
                self._roll_back("rolled_back")
            case hear.Ended():
                silent = (heard.sample - heard.silence_sample) / TOKENIZER_RATE
                self._speech_end = job.arrived - silent
                self._end_turn(heard.tokens, fx.SpeechStopped(_ms(heard.sample)))
            case hear.NobodySpoke():
                given = fx.IdleTimedOut(_ms(heard.since), _ms(heard.sample))
                self._end_turn(heard.tokens, given)
            case hear.Overflowed():
                seconds = self._parts.max_turn_seconds
                message = f"the buffer holds {seconds:g} s of audio, its most: commit or clear it"
                self.refuse(ProtocolError("input_audio_buffer_full", message))

    def _end_turn(self, tokens: tuple[int, ...], given: fx.Input) -> None:
        self._turn, self._turn_end = tokens, self._clock()
        self._warm_tokens = None
        self._apply(self._machine.on_input(given))
        self._turn = None
        if not self._machine.answering():
            self._roll_back("abandoned")  # nobody asked for an answer

    def _unusable(self, error: AudioError) -> None:
        self.refuse(ProtocolError("invalid_value", str(error), "audio"))

    # --- before the turn is over ------------------------------------------------------------------

    def _asked(self, run: fx.StartRun, prompt: tuple[int, ...]) -> AnswerRequest:
        spoken = run.modality == "audio"
        params = self._parts.sampling(run.max_tokens)
        return AnswerRequest(prompt, params, run.voice, run.speed, spoken)

    def _warm(self, tokens: tuple[int, ...]) -> None:
        """Have the engine compute what has been said so far, while nothing else of ours runs."""
        self._warm_tokens = tokens
        if self._warming is None or self._warming.done():
            self._warming = asyncio.create_task(self._keep_warm())

    async def _keep_warm(self) -> None:
        try:
            while (tokens := self._warm_tokens) is not None:
                self._warm_tokens = None
                if self._default_run is not None or self._speculation is not None:
                    return
                run = self._machine.next_run()
                turns = self._memory.turns(run.items, run.instructions, tokens)
                await self._services.engine.warm(self._key, self._parts.prompts.unfinished(turns))
        except AqaaError as error:  # the answer will meet the same fault, and report it
            log.info("warming up failed: %s", error)

    def _speculate(self, tokens: tuple[int, ...]) -> None:
        """Start the answer that the machine will ask for if this pause is the end of the turn."""
        detection = self._machine.session.audio.input.turn_detection
        wanted = detection is not None and detection.create_response and self._parts.speculation
        if not wanted or self._default_run is not None or not tokens:
            return
        self._roll_back("rolled_back")
        self._warm_tokens = None
        run = self._machine.next_run()
        turns = self._memory.turns(run.items, run.instructions, tokens)
        try:
            asked = self._asked(run, tuple(self._parts.prompts.finished(turns)))
        except AqaaError as error:
            log.info("no speculation: %s", error)
            return
        self._speculation = self._begin(self._key, asked, run)

    def _begin(self, key: str, asked: AnswerRequest, run: fx.StartRun) -> Answer:
        return Answer(
            self._services,
            key,
            asked,
            self._parts.parser(),
            output_of(run.format) if asked.spoken else None,
            bytes_per_second=bytes_per_ms(run.format) * 1000,
        )

    def _roll_back(self, outcome: str) -> None:
        if self._speculation is None:
            return
        self._services.metrics.speculations.labels(outcome).inc()
        self._dispose(self._speculation)
        self._speculation = None

    def _dispose(self, answer: Answer) -> None:
        task = asyncio.create_task(answer.stop())
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    # --- answers ----------------------------------------------------------------------------------

    def _start(self, run: fx.StartRun) -> None:
        if run.default:
            self._default_run = run.response_id
            self._turn_end = self._turn_end or self._clock()
        task = asyncio.create_task(self._answer(run))
        self._runs[run.response_id] = task
        task.add_done_callback(lambda _: self._runs.pop(run.response_id, None))

    def _stop(self, response: str) -> None:
        task = self._runs.pop(response, None)
        if task is not None:
            task.cancel()
            self._cleaning.add(task)
            task.add_done_callback(self._cleaning.discard)
        if self._default_run == response:
            self._default_run = None

    async def _answer(self, run: fx.StartRun) -> None:
        """Give one answer, from the prompt to its end."""
        response_id.set(run.response_id)
        key = self._key if run.default else f"{self._key}/{run.response_id}"
        answer: Answer | None = None
        try:
            await self._memory.ready(run.items)
            turns = self._memory.turns(run.items, run.instructions)
            if not turns:
                self._end(run, None, AnswerEnd("failed", "conversation_empty"))
                return
            prompt = tuple(self._parts.prompts.finished(turns))
            asked = self._asked(run, prompt)
            answer = self._adopted(run, asked) or self._begin(key, asked, run)
            self._announce(run, answer)
            counted = answer.progress.reused
            while True:
                said = await answer.next()
                if answer.progress.reused != counted:  # known with the first id, or with the last
                    counted = answer.progress.reused
                    self._count(run, answer)
                if isinstance(said, AnswerEnd):
                    break
                self._say(run, answer, said)
            self._end(run, answer, said)
        except AqaaError as error:
            log.warning("no answer: %s", error)
            self._end(run, answer, AnswerEnd("failed", error_code(error)))
        except Exception:
            log.exception("an answer failed for a reason that is a bug")
            self._end(run, answer, AnswerEnd("failed", "internal_error"))
        finally:
            if answer is not None:
                await answer.stop()
            if not run.default:
                await self._services.engine.release(key)

    def _adopted(self, run: fx.StartRun, asked: AnswerRequest) -> Answer | None:
        """The speculation, if it is the answer that is asked for."""
        answer = self._speculation
        if answer is None or not run.default:
            return None
        if answer.asked != asked:
            self._roll_back("mismatched")
            return None
        self._speculation = None
        answer.adopt()
        now = self._clock()
        first = answer.progress.timeline.first_sound
        self._services.metrics.speculations.labels("hit").inc()
        self._services.metrics.saved.inc(min(now, first or now) - answer.started)
        return answer

    def _announce(self, run: fx.StartRun, answer: Answer) -> None:
        answer.adopt()
        timeline = answer.progress.timeline
        if run.default:
            timeline.speech_end, self._speech_end = self._speech_end, None
            timeline.turn_end, self._turn_end = self._turn_end, None
        timeline.tokenise = self._clock()
        self._answers = {run.item_id: answer} if run.default else self._answers
        self._memory.answer(run.item_id, answer.progress.ids, run.speed)
        self._count(run, answer)

    def _count(self, run: fx.StartRun, answer: Answer) -> None:
        """Tell the prompt's size, and what of it the engine had computed, once that is known."""
        kinds, prompt = self._parts.prompts.kinds, answer.asked.prompt
        cached = kinds(prompt[: answer.progress.reused])
        self._apply(self._machine.on_input(fx.RunStarted(run.response_id, *kinds(prompt), *cached)))

    def _say(self, run: fx.StartRun, answer: Answer, said: AnswerEvent) -> None:
        match said:
            case Text():
                start = int(said.start * 1000)
                given: fx.Input = fx.RunText(run.response_id, said.text, said.tokens, start)
                self._apply(self._machine.on_input(given))
            case Sound():
                given = fx.RunSound(run.response_id, said.data, said.tokens)
                self._apply(self._machine.on_input(given))
                self._sent(run, answer, said)

    def _sent(self, run: fx.StartRun, answer: Answer, sound: Sound) -> None:
        """Keep account of sound that has just left."""
        if not sound.data:
            return
        metrics, timeline, now = self._services.metrics, answer.progress.timeline, self._clock()
        gap = answer.progress.playback.send(sound.seconds, now)
        metrics.spoken.inc(sound.seconds)
        if gap > 0:
            metrics.underruns.inc()
            metrics.gap.inc(gap)
        if timeline.send is not None:
            return
        timeline.send = now
        stages = timeline.stages()
        if stages:
            metrics.heard.observe(stages["total"] / 1000)
            for stage in STAGES:
                metrics.stage.labels(stage).observe(stages[stage] / 1000)
            if "latency" in self._machine.session.aqaa.extensions:
                event_id = random_id("event")
                self._send(
                    server.LatencyReported(
                        event_id=event_id, response_id=run.response_id, stages=stages
                    )
                )

    def _end(self, run: fx.StartRun, answer: Answer | None, over: AnswerEnd) -> None:
        if run.default and self._default_run == run.response_id:
            self._default_run = None
            if answer is not None:
                self._listening.put(SuppressIdle(answer.progress.playback.ahead(self._clock())))
        self._runs.pop(run.response_id, None)
        self._services.metrics.answers.labels(over.status).inc()
        self._apply(self._machine.on_input(fx.RunEnded(run.response_id, over.status, over.code)))


def _ms(sample: int) -> int:
    return sample * 1000 // TOKENIZER_RATE
