"""One live session: its machine, its speech input and its answers, joined on the event loop.

    socket ─> receive ─> machine ─┬─> events ─> socket
                 ▲                └─> effects: append, commit, start, stop, cut
                 │
       speech input and answers report back

No reaction waits: what the machine asks for is done at once, so there is one order of events and
no lock. Models run elsewhere: in `server/compute` and in the engine.

Speculation: at a pause the answer is started as if the turn were over, and held back. When the turn
ends and the machine asks for the same answer, it is adopted; when the user goes on speaking, it is
stopped.

Take-back: a turn that has ended goes on if its speaker does so within a moment. The answer to the
part is stopped as by any interruption, and leaves the conversation when the whole turn enters it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AqaaError
from aqaa.server.answering.answer import (
    Answer,
    AnswerCall,
    AnswerEnd,
    AnswerEvent,
    AnswerSound,
    AnswerText,
    error_code,
)
from aqaa.server.hearing.input_queue import (
    AppendAudio,
    ClearBuffer,
    CommitBuffer,
    ConfigureInput,
    InputQueue,
    LetTurnGo,
    SuppressIdle,
)
from aqaa.server.hearing.item_sounds import ItemSounds
from aqaa.server.hearing.speech_events import (
    BufferFull,
    SilenceTimedOut,
    SpeechDismissed,
    SpeechEvent,
    SpeechSuspected,
    TurnEncoded,
    TurnEnded,
    TurnGrew,
    TurnPaused,
    TurnReopened,
    TurnResumed,
    TurnSound,
    TurnStarted,
)
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.transcribing import TurnWindows
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.observe.logs import response_id
from aqaa.server.parts import ModelParts, input_of
from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.machine import SessionMachine
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.head_start import HeadStart, request_of, start_answer
from aqaa.server.session.interruptions import Interruptions
from aqaa.server.session.memory import Memory
from aqaa.server.session.outlet import Outlet
from aqaa.server.session.sound_count import count_sound
from aqaa.server.session.stall import StallWatch
from aqaa.server.session.transcript_relay import TranscriptRelay

log = logging.getLogger(__name__)


class LiveSession:
    """One session, from `open` to `close`. It listens only while `run` runs."""

    def __init__(self, parts: ModelParts, session: Session, outlet: Outlet) -> None:
        """A new session that sends its events through `outlet`.

        Raises:
            ProtocolError: the session's settings name an unknown voice.
        """
        self._parts = parts
        self._services = parts.services
        self._clock = parts.services.clock
        self._outlet = outlet
        self._key = session.id
        self._machine = SessionMachine(
            session,
            parts.voices,
            self._heard_ms,
            self._sound_waits,
            no_speech=lambda: self._speech.no_speech(),
            transcribes=parts.transcriber is not None,
            calls=parts.bundle.tools is not None,
            limits=parts.limits(),
        )
        self._stall = StallWatch(self._machine, self._append)
        self._memory = Memory(
            parts.bundle.tokens, parts.text, parts.prompts, parts.services.executor
        )
        self._head_start = HeadStart(
            parts,
            session.id,
            self._memory,
            next_run=self._machine.next_run,
            answering=lambda: self._default_run is not None,
            dispose=lambda answer: self._clean_up(answer, None),
        )
        self._words = TranscriptRelay(
            parts, self._memory, lambda given: self._apply(self._machine.on_input(given))
        )
        self._words.configure(self._machine.session)
        self._turn_windows = TurnWindows(None, ())  # of the turn that ends just now
        audio = self._machine.session.audio.input
        self._heard_as = (audio.format, audio.noise_reduction)
        self._odd_byte = b""  # the first half of a sample that the client cut in two
        rules = TurnRules.of_session(self._machine.session)
        self._speech = SpeechInput(
            parts.tokenising,
            parts.vad.stream(),
            input_of(*self._heard_as),
            rules,
            parts.max_turn_seconds,
            parts.judge,
        )
        self._input = InputQueue(
            self._speech,
            parts.services.executor,
            parts.services.clock,
            on_speech=self._on_speech,
            on_sound=self._on_sound,
            on_bad_audio=self.refuse,
        )
        self._item_sounds = ItemSounds(
            parts.tokenising,
            parts.vad.stream,
            parts.services.executor,
            on_sound=self._on_sound,
            on_bad_audio=self.refuse,
        )
        self._interruptions = Interruptions(parts.services, self._input.put, outlet.send)
        self._interruptions.configure(self._machine.session, rules)
        self._last_turn: str | None = None  # the item of a turn that may go on
        self._epoch = 0  # of the client's buffer: raised by each of its commits and clears
        self._speech_end: float | None = None
        self._turn_end: float | None = None
        self._answers: dict[str, Answer] = {}  # by item id, while some of it may be unheard
        self._runs: dict[str, asyncio.Task[None]] = {}  # by response id
        self._default_run: str | None = None
        self._cleaning: set[asyncio.Task[None]] = set()
        self._told_of_tools = False

    # --- the socket's side ------------------------------------------------------------------------

    def open(self) -> None:
        """Send the session's first event."""
        self._apply(self._machine.open())

    async def run(self) -> None:
        """Work on the session's audio input, until cancelled; ends by itself only in a fault."""
        async with asyncio.TaskGroup() as tasks:
            for one in (self._input, self._words, self._stall):
                tasks.create_task(one.run())

    async def receive(self, event: client.ClientEvent) -> None:
        """Take a client's event. Waits for the client's own audio alone: while too much waits to be
        heard, and before a commit."""
        if isinstance(event, client.InputAudioBufferAppend):
            self._stall.sound_came()
        if isinstance(event, client.InputAudioBufferCommit):
            await self._input.worked_off()  # it is known then whether anybody speaks in it
        if isinstance(event, client.SessionUpdate) and event.session.get("tools"):
            self._tell_of_tools()
        self._apply(self._machine.on_client(event))
        await self._input.room()
        await self._item_sounds.room()

    def _tell_of_tools(self) -> None:
        bundle = self._parts.bundle
        if bundle.tools is None and not self._told_of_tools:
            self._told_of_tools = True
            log.warning("tools are declared, and %r has no [tools]: it calls none", bundle.name)

    def refuse(self, error: ProtocolError) -> None:
        """Tell the client what is wrong with its message."""
        self._apply(self._machine.refuse(error))

    async def idle(self) -> None:
        """Wait until no answer is in progress."""
        while self._runs:
            await asyncio.wait(list(self._runs.values()))

    def kept_items(self) -> set[str]:
        """The items of which tokens are kept."""
        return self._memory.kept()

    async def close(self) -> None:
        """Stop all work and release what the engine holds for the session."""
        runs = list(self._runs.values())
        for task in runs:
            task.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        await self._item_sounds.close()
        await self._head_start.close()
        self._apply(self._machine.close())
        while self._cleaning:
            await asyncio.wait(list(self._cleaning))
        await self._services.engine.release(self._key)

    # --- what the machine wants -------------------------------------------------------------------

    def _apply(self, outputs: list[Output], sound_left: Callable[[], None] | None = None) -> None:
        for output in outputs:
            if isinstance(output, server.ResponseOutputAudioDelta):
                self._outlet.send(output, sound_left)
            elif isinstance(output, server.FromServer):
                self._outlet.send(output)
            else:
                self._carry_out(output)

    def _carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Append():
                self._append(effect.data)
            case fx.Commit():
                self._commit(effect)
            case fx.Clear():
                self._new_epoch()
                self._input.put(ClearBuffer())
            case fx.Configure():
                self._configure(effect.session)
            case fx.StoreAudio():
                self._memory.expect(effect.item_id)
                converter = input_of(self._heard_as[0])
                asks = self._machine.session.type == "realtime"
                self._item_sounds.put(effect.item_id, effect.data, converter, asks=asks)
            case fx.StartRun():
                self._start_run(effect)
            case fx.StopRun():
                self._stop_run(effect.response_id)
            case fx.CutItem():
                self._services.metrics.interruptions.inc(effect.interrupted)
                self._memory.cut(effect.item_id, effect.audio_end_ms)
                self._outlet.drop(effect.item_id)
                self._interruptions.stopped()
            case fx.ForgetItem():
                if effect.item_id == self._last_turn:
                    self._input.put(LetTurnGo())
                self._item_sounds.forget(effect.item_id)
                self._memory.forget(effect.item_id)
                self._answers.pop(effect.item_id, None)

    def _append(self, data: bytes) -> None:
        data = self._odd_byte + data
        whole = len(data) - len(data) % (2 if self._heard_as[0].type == "audio/pcm" else 1)
        self._odd_byte = data[whole:]
        self._input.put(AppendAudio(data[:whole], self._clock(), self._epoch))

    def _commit(self, commit: fx.Commit) -> None:
        self._memory.expect(commit.item_id)
        if commit.tokens is not None:
            self._last_turn = commit.item_id
            self._on_sound(commit.item_id, TurnSound(commit.tokens, self._turn_windows))
            return
        self._new_epoch()
        self._speech_end = self._clock()
        self._input.put(CommitBuffer(commit.item_id))

    def _on_sound(self, item_id: str, sound: TurnSound) -> None:
        self._memory.store(item_id, sound.tokens)
        self._words.end(item_id, sound.windows)

    def _new_epoch(self) -> None:
        """The client committed or cleared its buffer: later reports about it are out of date."""
        self._epoch += 1
        self._words.empty_buffer()
        self._interruptions.forget()
        self._odd_byte = b""
        self._head_start.stop_warming()
        self._head_start.roll_back("abandoned")

    def _configure(self, session: Session) -> None:
        audio = session.audio.input
        before, self._heard_as = self._heard_as, (audio.format, audio.noise_reduction)
        if audio.format != before[0]:
            self._odd_byte = b""
        converter = input_of(*self._heard_as) if self._heard_as != before else None
        self._words.configure(session)
        rules = TurnRules.of_session(session)
        self._interruptions.configure(session, rules)
        self._input.put(ConfigureInput(converter, rules))

    def _heard_ms(self, item_id: str) -> int | None:
        """How much of an answer has been heard by now; None: all of it, or it is unknown."""
        answer = self._answers.get(item_id)
        if answer is None:
            return None
        now, left = self._clock(), answer.progress.left
        if answer.over and not self._sound_waits(item_id) and left.ahead(now) <= 0:
            return None
        return int(left.heard(now) * 1000)

    def _sound_waits(self, item_id: str) -> bool:
        """Whether sound of an answer waits to be sent."""
        answer = self._answers.get(item_id)
        return answer is not None and answer.progress.left.sent < answer.progress.playback.sent

    # --- what the speech input reports ------------------------------------------------------------

    def _on_speech(self, event: SpeechEvent, job: AppendAudio) -> None:
        if isinstance(event, TurnEncoded):
            self._words.hear(event.windows, buffered=job.epoch == self._epoch)
        if job.epoch != self._epoch:
            return
        match event:
            case SpeechSuspected() | SpeechDismissed():
                self._interruptions.react(event)
            case TurnStarted():
                self._interruptions.speech_began()
                self._apply(self._machine.on_input(fx.SpeechStarted(_ms(event.sample))))
            case TurnReopened():
                self._services.metrics.reopened_turns.inc()
                self._last_turn = None  # its sound is the buffer's again
                self._apply(self._machine.on_input(fx.SpeechResumed(_ms(event.sample))))
            case TurnGrew():
                if self._machine.session.type == "realtime":
                    self._head_start.warm(event.tokens)
            case TurnPaused():
                self._speculate(event.tokens)
            case TurnResumed():
                self._head_start.roll_back("rolled_back")
            case TurnEnded():
                silent = (event.sample - event.silence_sample) / TOKENIZER_RATE
                self._speech_end = job.arrived - silent
                if event.wait is not None:
                    self._services.metrics.turn_ended(event.wait.word, silent)
                stopped = fx.SpeechStopped(_ms(event.sample), event.tokens)
                self._end_turn(stopped, event.windows)
            case SilenceTimedOut():
                since, until = _ms(event.since), _ms(event.sample)
                idled = fx.IdleTimedOut(since, until, event.tokens)
                self._end_turn(idled, TurnWindows(None, ()))
            case BufferFull():
                seconds = self._parts.max_turn_seconds
                message = f"the buffer holds {seconds:g} s of audio, its most: commit or clear it"
                self.refuse(ProtocolError("input_audio_buffer_full", message))

    def _end_turn(self, given: fx.Input, windows: TurnWindows) -> None:
        self._turn_end, self._turn_windows = self._clock(), windows
        self._head_start.stop_warming()
        self._apply(self._machine.on_input(given))
        if not self._machine.answering():  # nobody asked for an answer
            self._head_start.roll_back("abandoned")
            self._speech_end = self._turn_end = None

    def _speculate(self, tokens: tuple[int, ...]) -> None:
        """The user pauses: start the answer that the machine asks for if this ends the turn."""
        wanted = self._machine.answers_turns() and self._parts.speculation
        if wanted and tokens and self._default_run is None:
            self._head_start.speculate(tokens)

    def _clean_up(self, answer: Answer | None, key: str | None) -> None:
        """Stop an answer, and release an engine's session, whatever is cancelled meanwhile."""
        self._clean(asyncio.create_task(self._put_away(answer, key)))

    def _clean(self, task: asyncio.Task[None]) -> None:
        """Let it end by itself; `close` waits for it and does not cancel it."""
        self._cleaning.add(task)
        task.add_done_callback(self._cleaning.discard)

    async def _put_away(self, answer: Answer | None, key: str | None) -> None:
        if answer is not None:
            await answer.stop()
        if key is not None:
            await self._services.engine.release(key)

    # --- answers ----------------------------------------------------------------------------------

    def _start_run(self, run: fx.StartRun) -> None:
        if run.default:
            self._default_run = run.response_id
            self._turn_end = self._turn_end or self._clock()
            self._input.put(SuppressIdle(None))
        task = asyncio.create_task(self._give_answer(run))
        self._runs[run.response_id] = task
        task.add_done_callback(lambda _: self._runs.pop(run.response_id, None))

    def _stop_run(self, response: str) -> None:
        task = self._runs.pop(response, None)
        if task is not None:
            task.cancel()
            self._clean(task)
        if self._default_run == response:
            self._default_run = None
            self._head_start.roll_back("abandoned")  # if the run had not come to take it yet
            self._input.put(SuppressIdle(0.0))  # its sound is no longer played

    async def _give_answer(self, run: fx.StartRun) -> None:
        """Give one answer, from the prompt to its end."""
        response_id.set(run.response_id)
        key = self._key if run.default else f"{self._key}/{run.response_id}"
        answer: Answer | None = None
        try:
            own = run.instructions != self._machine.session.instructions
            await self._memory.ready(run.items, asks=not own)
            request = await request_of(self._parts, self._memory, run)
            answer = self._head_start.take(request) if run.default else None
            answer = answer or start_answer(self._parts, key, request, run)
            self._announce(run, answer)
            counted = answer.progress.reused
            while True:
                event = await answer.next()
                if answer.progress.reused != counted:  # known with the first id, or with the last
                    counted = answer.progress.reused
                    self._report_prompt(run, answer)
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
        answer.adopt()
        timeline = answer.progress.timeline
        if run.default:
            timeline.speech_end, self._speech_end = self._speech_end, None
            timeline.turn_end, self._turn_end = self._turn_end, None
        timeline.tokenise = self._clock()
        self._answers = {run.item_id: answer} if run.default else self._answers
        self._memory.answer(run.item_id, answer.progress.ids, run.speed)
        self._report_prompt(run, answer)

    def _report_prompt(self, run: fx.StartRun, answer: Answer) -> None:
        """Tell the machine the prompt's size and, once known, how much of it was cached."""
        kinds, prompt = self._parts.prompts.kinds, answer.request.prompt
        cached = kinds(prompt[: answer.progress.reused])
        self._apply(self._machine.on_input(fx.RunStarted(run.response_id, *kinds(prompt), *cached)))

    def _forward(self, run: fx.StartRun, answer: Answer, event: AnswerEvent) -> None:
        match event:
            case AnswerText():
                start = int(event.start * 1000)
                given: fx.Input = fx.RunText(run.response_id, event.text, event.tokens, start)
                self._apply(self._machine.on_input(given))
            case AnswerSound():
                data = self._interruptions.sound(run, answer.progress.playback, event.data)
                given = fx.RunSound(run.response_id, data, event.tokens)

                def sound_left() -> None:
                    answer.progress.left.send(event.seconds, self._clock())

                self._apply(self._machine.on_input(given), sound_left)
                self._count_sound(run, answer, event)
            case AnswerCall():
                given = fx.RunCall(run.response_id, event.name, event.arguments, event.tokens)
                self._apply(self._machine.on_input(given))

    def _count_sound(self, run: fx.StartRun, answer: Answer, sound: AnswerSound) -> None:
        """Count sound that has just been sent."""
        if not sound.data:
            return
        stages = count_sound(self._services.metrics, answer.progress, sound, self._clock())
        if stages and "latency" in self._machine.session.aqaa.extensions:
            self._outlet.send(
                server.LatencyReported(
                    event_id=random_id("event"), response_id=run.response_id, stages=stages
                )
            )

    def _end_run(self, run: fx.StartRun, answer: Answer | None, over: AnswerEnd) -> None:
        if run.default and self._default_run == run.response_id:
            self._default_run = None
            ahead = 0.0 if answer is None else answer.progress.playback.ahead(self._clock())
            self._input.put(SuppressIdle(ahead))
        self._runs.pop(run.response_id, None)
        self._services.metrics.answers.labels(over.status).inc()
        self._apply(self._machine.on_input(fx.RunEnded(run.response_id, over.status, over.code)))


def _ms(sample: int) -> int:
    return sample * 1000 // TOKENIZER_RATE
