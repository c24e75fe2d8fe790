"""The session machine: what a Realtime session says, and never how.

No sockets, no clock, no model. Client events and inputs go in; server events and effects come out,
in the order in which they are to be sent and done. Whoever drives it (`session.live_session`) does
the effects and reports what happened as inputs; it also knows how much of an answer was heard.

    on_client(event) ─┐                       ┌─> ServerEvent   to the socket
                      ├─> conversation, ──────┤
    on_input(input) ──┘   open responses      └─> Effect        to the driver

Every response ends in exactly one `response.done`. An input that names a response which is over is
dropped: response ids are the generation stamps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.answers import Answers
from aqaa.server.protocol.configure import Voices, as_served, updated
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.items import Items, MakeId, Output
from aqaa.server.protocol.limits import COMMIT_EMPTY, Limits
from aqaa.server.protocol.response import cancelled
from aqaa.server.protocol.responses import Responses
from aqaa.server.protocol.session_types import ServerVad, Session
from aqaa.server.protocol.transcription_types import shown
from aqaa.server.protocol.transcripts import Transcripts
from aqaa.server.protocol.types import (
    Error,
    InputSound,
    Message,
    ResponseOptions,
    bytes_per_second,
)


class SessionMachine:
    """One session. Methods return what to send and to do; none of them raises on client input."""

    def __init__(
        self,
        session: Session,
        voices: Voices,
        heard_ms: Callable[[str], int | None],
        waits: Callable[[str], bool],
        *,
        no_speech: Callable[[], str | None] = lambda: None,
        transcribes: bool = False,
        calls: bool = False,
        limits: Limits | None = None,
        make_id: MakeId = random_id,
    ) -> None:
        """A new session with these settings.

        Args:
            session: the settings.
            voices: the known voices.
            heard_ms: milliseconds heard of an assistant's item; None: all of it, or unknown.
            waits: whether sound of an assistant's item that is made still waits to be sent.
            no_speech: why what is buffered is no question, in words; None: somebody speaks in it.
            transcribes: whether the user's words can be known.
            calls: whether functions can be called.
            limits, make_id: its bounds; what makes its ids.

        Raises:
            ProtocolError: the settings name an unknown voice.
        """
        self._voices = voices
        self._no_speech = no_speech
        self._unasked: str | None = None  # why the client's last event, a commit, was refused
        self._transcribes, self._calls = transcribes, calls
        self._limits = limits or Limits()
        self._make_id = make_id
        self._items = Items(self._limits, make_id)
        self._transcripts = Transcripts(self._items, make_id)
        self._answers = Answers(self._items, heard_ms, waits, make_id)
        self._responses = Responses(self._items, self._answers, voices, self._limits, make_id)
        self.speaking = False  # whether the user is, by turn detection
        self._buffered = 0  # bytes appended since the last commit or clear
        self._buffer_item = make_id("item")
        self._last_turn: str | None = None  # the item of the last turn that turn detection ended
        self._interrupted: str | None = None  # the answer into which the user is speaking
        self._taken_back: tuple[str, ...] = ()  # leave for the buffer's item, which says it all
        self._held_words: list[fx.Words] = []  # of what may leave: a client would ask for it
        self.session = as_served(session, voices, transcribes=transcribes, calls=calls)

    # --- entry points -----------------------------------------------------------------------------

    def open(self) -> list[Output]:
        """What a new session says first."""
        return [server.SessionCreated(event_id=self._event_id(), session=shown(self.session))]

    def close(self) -> list[Output]:
        """The session is over: its items leave at once, not with the next collection of garbage."""
        return [fx.ForgetItem(item_id) for item_id in self._items.conversation.clear()]

    def refuse(self, error: ProtocolError) -> list[Output]:
        """The `error` event for a client's message."""
        detail = Error(
            type="invalid_request_error",
            code=error.code,
            message=str(error),
            param=error.param,
            event_id=error.event_id,
        )
        return [server.ErrorEvent(event_id=self._event_id(), error=detail)]

    def on_client(self, event: client.ClientEvent) -> list[Output]:
        """React to a client event; one that cannot be obeyed gives an `error` event.

        Raises:
            UncountedError: nothing is done yet; the same event may come again.
        """
        try:
            return self._obey(event)
        except ProtocolError as error:
            error.event_id = event.event_id
            return self.refuse(error)

    def on_input(self, given: fx.Input) -> list[Output]:
        """React to what the driver saw."""
        match given:
            case fx.SpeechStarted():
                return self._speech_started(given)
            case fx.SpeechResumed():
                return self._speech_resumed(given)
            case fx.SpeechStopped():
                return self._speech_stopped(given)
            case fx.IdleTimedOut():
                return self._idle_timed_out(given)
            case fx.UserWords() | fx.UserWordsEnded() | fx.UserWordsFailed():
                return self._user_words(given)
            case fx.SoundFetched():
                return self._sound_fetched(given)
            case _:
                return self._responses.react(given, self.session)

    def answering(self) -> bool:
        """Whether any response is open."""
        return self._responses.any_open()

    def answers_turns(self) -> bool:
        """Whether the end of a turn asks for an answer."""
        detection = self.session.audio.input.turn_detection
        return detection is not None and detection.create_response and not self._writes_only()

    def next_run(self) -> fx.StartRun:
        """What an answer would be asked for if the turn that goes on were over now, without it."""
        run = self._responses.plan(ResponseOptions(), self.session)[0]
        kept = tuple(item for item in run.items if item.id not in self._taken_back)
        return replace(run, items=kept)

    # --- client events ----------------------------------------------------------------------------

    def _obey(self, event: client.ClientEvent) -> list[Output]:
        unasked, self._unasked = self._unasked, None
        match event:
            case client.InputAudioBufferAppend():
                return self._append(event)
            case client.InputAudioBufferCommit():
                return self._commit()
            case client.InputAudioBufferClear():
                self._empty_buffer()
                cleared = server.InputAudioBufferCleared(event_id=self._event_id())
                return [fx.Clear(), cleared, *self._nothing_is_taken_back()]
            case client.OutputAudioBufferClear():
                raise ProtocolError(
                    "invalid_value",
                    "output_audio_buffer.clear is for WebRTC and SIP; over a WebSocket the client"
                    " holds the output buffer: stop playing and send conversation.item.truncate",
                    "type",
                )
            case client.SessionUpdate():
                return self._update(event)
            case client.ConversationItemCreate():
                return self._items.create(
                    event, reserved=self._buffer_item, format=self.session.audio.input.format
                )
            case client.ConversationItemRetrieve():
                return self._items.retrieve(event, self.session.audio.input.format)
            case client.ConversationItemTruncate():
                return self._truncate(event)
            case client.ConversationItemDelete():
                return self._delete(event.item_id)
            case client.ResponseCreate():
                return self._create_response(event.response or ResponseOptions(), unasked)
            case client.ResponseCancel():
                return self._responses.cancel(event, self.session)

    def _append(self, event: client.InputAudioBufferAppend) -> list[Output]:
        self._limits.check_append(event.audio)
        self._buffered += len(event.audio)
        return [fx.Append(event.audio)] if event.audio else []

    def _commit(self) -> list[Output]:
        self._limits.check_commit(self._buffered, self.session.audio.input.format)
        fault = None if self._writes_only() else self._no_speech()
        if fault is not None:
            self._unasked = fault
            raise ProtocolError(COMMIT_EMPTY, fault)
        return self._commit_buffer()

    def _commit_buffer(self, tokens: tuple[int, ...] | None = None) -> list[Output]:
        """The buffer's item enters the conversation."""
        item_id, conversation = self._buffer_item, self._items.conversation
        left = [one for one in self._taken_back if one in conversation]
        deleted = [output for one in left for output in self._delete(one)]
        self._empty_buffer()
        deleted += self._nothing_is_taken_back()
        self._last_turn = None if tokens is None else item_id
        item = Message(id=item_id, role="user", content=[InputSound()])
        if self._writes_only() or self.session.audio.input.transcription is not None:
            self._transcripts.expect(item_id)
        return [
            *deleted,
            server.InputAudioBufferCommitted(
                event_id=self._event_id(), previous_item_id=conversation.last_id(), item_id=item_id
            ),
            *self._items.add(item_id, item),
            fx.Commit(item_id, tokens),  # last: its words, where they are known, are told at once
        ]

    def _empty_buffer(self) -> None:
        self.speaking, self._buffered, self._buffer_item = False, 0, self._make_id("item")
        self._interrupted = None

    def _nothing_is_taken_back(self) -> list[Output]:
        """What may leave the conversation has left it, or stays: then its words are told."""
        self._taken_back, held, self._held_words = (), self._held_words, []
        return [output for given in held for output in self._user_words(given)]

    def _update(self, event: client.SessionUpdate) -> list[Output]:
        new = updated(
            self.session,
            event.session,
            self._voices,
            transcribes=self._transcribes,
            calls=self._calls,
        )
        self._limits.check_session(new)
        if (
            self._responses.voice_is_fixed
            and new.audio.output.voice != self.session.audio.output.voice
        ):
            raise ProtocolError(
                "cannot_update_voice",
                "the voice cannot change once the session has spoken; open a new session for it",
                "session.audio.output.voice",
            )
        before, now = self.session.audio.input.format, new.audio.input.format
        if now != before:  # what was buffered is kept as sound, and counts in other bytes
            self._buffered = self._buffered * bytes_per_second(now) // bytes_per_second(before)
        if new.audio.input.turn_detection is None:
            self.speaking = False
        begins = new.audio.input.turn_detection and not self.session.audio.input.turn_detection
        self.session = new
        told = server.SessionUpdated(event_id=self._event_id(), session=shown(new))
        # Turn detection begins with an empty buffer.
        return [fx.Configure(new), told, *(self._nothing_is_taken_back() if begins else ())]

    def _delete(self, item_id: str) -> list[Output]:
        self._items.known(item_id, "item_delete_invalid_item_id")
        stopped: list[Output] = []
        default = self._responses.default
        if default is not None and default.run.item_id == item_id:
            stopped = self._responses.stop(default, "client_cancelled", self.session)
        return [*stopped, *self._items.delete(item_id)]

    def _truncate(self, event: client.ConversationItemTruncate) -> list[Output]:
        answer, end = self._answers.truncated(event)
        stopped: list[Output] = []
        if answer is self._responses.default:  # cut while it is spoken: there is no more to hear
            details = cancelled("client_cancelled")
            stopped = self._responses.close(answer, "cancelled", details, self.session)
            stopped.insert(0, fx.StopRun(answer.run.response_id))
        return [
            *stopped,
            *self._answers.cut(event.item_id, end, interrupted=False),
            server.ConversationItemTruncated(
                event_id=self._event_id(),
                item_id=event.item_id,
                content_index=0,
                audio_end_ms=end,
            ),
        ]

    def _create_response(self, options: ResponseOptions, unasked: str | None) -> list[Output]:
        if unasked is not None and options.input is None and options.instructions is None:
            raise ProtocolError(COMMIT_EMPTY, f"there is nothing to answer: {unasked}")
        if self._writes_only():
            raise ProtocolError("invalid_value", "a transcription session has no responses", "type")
        return self._responses.create(options, self.session)

    # --- inputs -----------------------------------------------------------------------------------

    def _speech_started(self, given: fx.SpeechStarted) -> list[Output]:
        detection = self.session.audio.input.turn_detection
        if detection is None or self.speaking:
            return []
        self.speaking = True
        out: list[Output] = [
            server.InputAudioBufferSpeechStarted(
                event_id=self._event_id(),
                audio_start_ms=given.start_ms,
                item_id=self._buffer_item,
            )
        ]
        if detection.interrupt_response:
            default = self._responses.default
            if default is not None:
                self._interrupted = default.run.item_id
                out += self._responses.stop(default, "turn_detected", self.session)
            elif (last := self._answers.newest()) is not None:
                self._interrupted = last
                out += self._answers.cut_at_playhead(last)  # all sent, perhaps not all played
        return out

    def _speech_resumed(self, given: fx.SpeechResumed) -> list[Output]:
        """The last turn goes on: to the client, one more interruption.

        Its item and the answers to it stay until the whole turn takes their place: till then a
        client may truncate what it played of them.
        """
        detection = self.session.audio.input.turn_detection
        if detection is None or self.speaking:
            return []
        self._responses.turn_goes_on()
        out = self._speech_started(fx.SpeechStarted(given.start_ms))
        if self._last_turn is not None and not self._answers.called_after(self._last_turn):
            self._taken_back = (*self._answers.after(self._last_turn), self._last_turn)
        return out

    def _speech_stopped(self, given: fx.SpeechStopped) -> list[Output]:
        detection = self.session.audio.input.turn_detection
        if detection is None or not self.speaking:
            return []
        stopped = server.InputAudioBufferSpeechStopped(
            event_id=self._event_id(), audio_end_ms=given.end_ms, item_id=self._buffer_item
        )
        resumed = self._responses.resume(self._interrupted) if given.nothing else []
        if resumed:
            self._empty_buffer()
            cleared = server.InputAudioBufferCleared(event_id=self._event_id())
            return [stopped, cleared, *self._nothing_is_taken_back(), *resumed]
        return [
            stopped,
            *self._commit_buffer(given.tokens),
            *self._answer_turn(detection.create_response),
        ]

    def _idle_timed_out(self, given: fx.IdleTimedOut) -> list[Output]:
        detection = self.session.audio.input.turn_detection
        if not isinstance(detection, ServerVad) or self.speaking or self._responses.default:
            return []
        if not self._responses.has_answered:
            return []  # the time counts from the end of the last answer
        fired = server.InputAudioBufferTimeoutTriggered(
            event_id=self._event_id(),
            audio_start_ms=given.start_ms,
            audio_end_ms=given.end_ms,
            item_id=self._buffer_item,
        )
        return [
            fired,
            *self._commit_buffer(given.tokens),
            *self._answer_turn(detection.create_response),
        ]

    def _user_words(self, given: fx.Words) -> list[Output]:
        if given.item_id in self._taken_back:
            self._held_words.append(given)
            return []
        return [*self._transcripts.react(given, self.session, self._buffer_item)]

    def _sound_fetched(self, given: fx.SoundFetched) -> list[Output]:
        try:
            return self._items.retrieved(given)
        except ProtocolError as error:
            error.event_id = given.wanted.event_id
            return self.refuse(error)

    def _answer_turn(self, wanted: bool) -> list[Output]:
        if not wanted or self._writes_only():
            return []
        return self._responses.answer_turn(self.session)

    def _writes_only(self) -> bool:
        return self.session.type == "transcription"

    def _event_id(self) -> str:
        return self._make_id("event")
