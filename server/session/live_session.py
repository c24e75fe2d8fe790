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
from aqaa.server.hearing.input_queue import (
    AppendAudio,
    ClearBuffer,
    CommitBuffer,
    ConfigureInput,
    InputQueue,
    LetTurnGo,
)
from aqaa.server.hearing.item_sounds import ItemSounds
from aqaa.server.hearing.speech_events import (
    HEARD,
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
from aqaa.server.parts import ModelParts, input_of
from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.limits import UncountedError
from aqaa.server.protocol.machine import SessionMachine
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.answer_runs import AnswerRuns
from aqaa.server.session.interruptions import Interruptions
from aqaa.server.session.kept_sounds import KeptSounds, Retrieval
from aqaa.server.session.memory import Memory
from aqaa.server.session.outlet import Outlet
from aqaa.server.session.stall import StallWatch
from aqaa.server.session.text_counts import TextCounts
from aqaa.server.session.transcript_relay import TranscriptRelay

NO_SOUND = TurnSound((), TurnWindows(None, ()))

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
        self._counts = TextCounts(parts.limits(), parts.services.executor)
        self._machine = SessionMachine(
            session,
            parts.voices,
            lambda item_id: self._answers.heard_ms(item_id),
            lambda item_id: self._answers.sound_waits(item_id),
            no_speech=lambda: self._speech.no_speech(),
            transcribes=parts.transcriber is not None,
            calls=parts.bundle.tools is not None,
            limits=self._counts.limits,
        )
        self._stall = StallWatch(self._machine, self._append, lambda: self._input.busy)
        self._memory = Memory(
            parts.bundle.tokens, parts.text, parts.prompts, parts.services.executor
        )
        self._sounds = KeptSounds(parts.limits().kept_sound)
        self._retrieval = Retrieval(
            self._sounds,
            parts.services.executor,
            room=outlet.room,
            report=lambda given: self._apply(self._machine.on_input(given)),
        )
        self._words = TranscriptRelay(
            parts, self._memory, lambda given: self._apply(self._machine.on_input(given))
        )
        self._words.configure(self._machine.session)
        self._turn = NO_SOUND  # of the turn that ends just now
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
        self._answers = AnswerRuns(
            parts,
            session.id,
            self._memory,
            self._sounds,
            self._interruptions,
            outlet,
            session=lambda: self._machine.session,
            next_run=self._machine.next_run,
            hear=self._input.put,
            report=lambda given, left: self._apply(self._machine.on_input(given), left),
        )
        self._head_start = self._answers.head_start
        self._told_of_tools = False

    # --- the socket's side ------------------------------------------------------------------------

    def open(self) -> None:
        """Send the session's first event."""
        self._apply(self._machine.open())

    async def run(self) -> None:
        """Work on the session's audio input, until cancelled; ends by itself only in a fault."""
        async with asyncio.TaskGroup() as tasks:
            for one in (self._input, self._words, self._stall, self._retrieval):
                tasks.create_task(one.run())

    async def receive(self, event: client.ClientEvent) -> None:
        """Take a client's event. Waits for the client's own doing alone: before more sound while
        too much waits to be heard, before a commit, and while it retrieves too much at once."""
        if isinstance(event, client.InputAudioBufferAppend):
            await self._input.room()
            self._stall.sound_came()
        elif client.brings_sound(event):
            await self._item_sounds.room()
        elif isinstance(event, client.InputAudioBufferCommit):
            await self._input.worked_off()  # it is known then whether anybody speaks in it
        elif isinstance(event, client.SessionUpdate) and event.session.get("tools"):
            self._tell_of_tools()
        self._apply(await self._obeyed(event))
        await self._retrieval.room()

    async def _obeyed(self, event: client.ClientEvent) -> list[Output]:
        """What comes of the event, once all that it depends on is counted."""
        while True:
            try:
                return self._machine.on_client(event)
            except UncountedError as missing:
                await self._counts.learn(missing.text)

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
        await self._answers.idle()

    def kept_items(self) -> set[str]:
        """The items of which tokens or sound are kept."""
        return self._memory.kept() | self._sounds.kept()

    async def close(self) -> None:
        """Stop all work and release what the engine holds for the session."""
        await self._answers.stop_all()
        await self._item_sounds.close()
        self._apply(self._machine.close())
        await self._answers.cleaned_up()
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
                self._expect(effect.item_id)
                converter = input_of(self._heard_as[0])
                asks = self._machine.session.type == "realtime"
                self._item_sounds.put(effect.item_id, effect.data, converter, asks=asks)
            case fx.StartRun():
                self._memory.resume(effect.item_id, effect.resumes)
                self._answers.start(effect)
            case fx.StopRun():
                self._answers.stop(effect.response_id)
            case fx.CutItem():
                self._services.metrics.interruptions.inc(effect.interrupted)
                self._memory.cut(effect.item_id, effect.audio_end_ms)
                self._sounds.cut(effect.item_id, effect.audio_end_ms)
                self._outlet.drop(effect.item_id)
                self._interruptions.stopped()
            case fx.FetchSound():
                self._retrieval.put(effect)
            case fx.ForgetItem():
                if effect.item_id == self._last_turn:
                    self._input.put(LetTurnGo())
                self._item_sounds.forget(effect.item_id)
                self._memory.forget(effect.item_id)
                self._sounds.forget(effect.item_id)
                self._answers.forget(effect.item_id)

    def _append(self, data: bytes) -> None:
        data = self._odd_byte + data
        whole = len(data) - len(data) % (2 if self._heard_as[0].type == "audio/pcm" else 1)
        self._odd_byte = data[whole:]
        self._input.put(AppendAudio(data[:whole], self._clock(), self._epoch))

    def _commit(self, commit: fx.Commit) -> None:
        self._expect(commit.item_id)
        if commit.tokens is not None:
            self._last_turn = commit.item_id
            self._on_sound(commit.item_id, self._turn)
            return
        self._new_epoch()
        self._answers.speech_end = self._clock()
        self._input.put(CommitBuffer(commit.item_id))

    def _expect(self, item_id: str) -> None:
        self._memory.expect(item_id)
        self._sounds.begin(item_id, HEARD)

    def _on_sound(self, item_id: str, sound: TurnSound) -> None:
        self._memory.store(item_id, sound.tokens)
        self._sounds.add(item_id, sound.pcm)
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
                self._words.pause(event.windows)
                self._speculate(event.tokens)
            case TurnResumed():
                self._head_start.roll_back("rolled_back")
            case TurnEnded():
                silent = (event.sample - event.silence_sample) / TOKENIZER_RATE
                self._answers.speech_end = job.arrived - silent
                if event.wait is not None:
                    self._services.metrics.turn_ended(event.wait.word, silent, event.nothing)
                stopped = fx.SpeechStopped(_ms(event.sample), event.tokens, bool(event.nothing))
                self._end_turn(stopped, TurnSound(event.tokens, event.windows, event.pcm))
            case SilenceTimedOut():
                since, until = _ms(event.since), _ms(event.sample)
                idled = fx.IdleTimedOut(since, until, event.tokens)
                nothing = TurnWindows(None, ())
                self._end_turn(idled, TurnSound(event.tokens, nothing, event.pcm))
            case BufferFull():
                seconds = self._parts.max_turn_seconds
                message = f"the buffer holds {seconds:g} s of audio, its most: commit or clear it"
                self.refuse(ProtocolError("input_audio_buffer_full", message))

    def _end_turn(self, given: fx.Input, sound: TurnSound) -> None:
        self._answers.turn_end, self._turn = self._clock(), sound
        self._head_start.stop_warming()
        self._apply(self._machine.on_input(given))
        self._turn = NO_SOUND
        if not self._machine.answering():  # nobody asked for an answer
            self._head_start.roll_back("abandoned")
            self._answers.speech_end = self._answers.turn_end = None

    def _speculate(self, tokens: tuple[int, ...]) -> None:
        """The user pauses: start the answer that the machine asks for if this ends the turn."""
        wanted = self._machine.answers_turns() and self._parts.speculation
        if wanted and tokens and not self._answers.answers_conversation():
            self._head_start.speculate(tokens)


def _ms(sample: int) -> int:
    return sample * 1000 // TOKENIZER_RATE
