"""What a client must remember so that its conversation can go on in another session.

A session's conversation is in its server's memory. When the server restarts or vanishes, the client
opens a new session, at another server perhaps, and tells it what was said: settings, turns and
answers, and the sound that no turn holds yet. Turns are told as sound while there is room, since
the model hears more than words; older ones as words, if the server sent any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.session_types import Session, merge
from aqaa.server.protocol.types import (
    FunctionCall,
    FunctionCallOutput,
    InputSound,
    InputText,
    Item,
    Json,
    Message,
    OutputSound,
)

SOUND_MS = 60_000  # that is kept of the newest turns, and of what no turn holds yet
LISTEN_MS = 1000  # of sound that is told though nobody was heard in it: speech may have begun
SLICE_MS = 1000  # of one append
MOST_ITEMS = 200
NOTHING_SPOKEN = "input_audio_buffer_commit_empty"  # the error's code


@dataclass
class _Answer:
    """An answer so far. `words`: each piece with the milliseconds of sound that came before it."""

    words: list[tuple[int, str]] = field(default_factory=list)
    sound_bytes: int = 0

    def cut(self, heard_ms: int) -> None:
        self.words = [(at, text) for at, text in self.words if at < heard_ms]

    def as_message(self, item_id: str) -> Message:
        spoken = OutputSound(transcript="".join(text for _, text in self.words))
        return Message(id=item_id, role="assistant", content=[spoken])


@dataclass
class _Turn:
    """A turn that was spoken: PCM16, and its words, if the server told any."""

    sound: bytes
    words: str = ""


class History:
    """Follows one conversation by its events; `replay` tells it to a new session.

    Sound is PCM16 at `rate` Hz, both ways.
    """

    def __init__(self, rate: int) -> None:
        self._bytes_per_ms = rate * 2 // 1000
        self._session: Json = {}
        self._items: dict[str, Item | _Turn | _Answer] = {}  # in the conversation's order
        self._unfinished: set[str] = set()  # answers in the making
        self._retold: set[str] = set()  # answers that the present session has not spoken itself
        self._asked: client.ResponseCreate | None = None  # for an answer that is not over
        self._hears_turns = True  # the server: it finds turns by itself
        self._answers_itself = True  # and answers each unasked
        self._input = bytearray()
        self._input_from = 0  # ms of the session's sound at which `_input` begins
        self._told_until = 0  # ms: items hold the sound before
        self._speech_from: int | None = None  # ms at which the turn began that is being spoken
        self._commit_at: int | None = None  # ms up to which the client has asked for an item

    def sent(self, event: client.ClientEvent) -> list[client.ClientEvent]:
        """The client sends this, or would if it were connected.

        Returns:
            What the present session must be sent for it: a session cuts no answer that it did not
            speak, so one that it was told is replaced by what was heard of it.
        """
        if isinstance(event, client.ConversationItemTruncate) and event.item_id in self._retold:
            return self._replaced(event)
        self._note(event)
        return [event]

    def _note(self, event: client.ClientEvent) -> None:
        match event:
            case client.SessionUpdate():
                self._session = merge(self._session, event.session)
            case client.InputAudioBufferAppend():
                self._input += event.audio
                self._forget_input(self._heard_until() - SOUND_MS)
            case client.InputAudioBufferCommit():
                self._commit_at = self._heard_until()
            case client.InputAudioBufferClear():
                self._told_until = self._heard_until()
                self._speech_from = None
            case client.ConversationItemCreate(item=item) if item.id is not None:
                self._keep(item.id, item)
            case client.ConversationItemTruncate():
                answer = self._items.get(event.item_id)
                if isinstance(answer, _Answer):
                    answer.cut(event.audio_end_ms)
            case client.ConversationItemDelete():
                self._items.pop(event.item_id, None)
            case client.ResponseCreate():
                self._asked = event
            case client.ResponseCancel():
                self._asked = None

    def received(self, event: server.ServerEvent) -> None:
        """The server has sent this."""
        match event:
            case server.SessionUpdated(session=Session() as session):
                detection = session.audio.input.turn_detection
                self._hears_turns = detection is not None
                self._answers_itself = detection is not None and detection.create_response
            case server.InputAudioBufferSpeechStarted():
                self._speech_from = event.audio_start_ms
            case server.InputAudioBufferSpeechStopped():
                self._commit_at = event.audio_end_ms
            case server.InputAudioBufferCommitted():
                self._commit(event.item_id)
            case server.InputAudioTranscriptionCompleted():
                turn = self._items.get(event.item_id)
                if isinstance(turn, _Turn):
                    turn.words = event.transcript
            case server.ConversationItemDeleted():
                self._items.pop(event.item_id, None)
            case server.ResponseCreated() if self._asked is None:
                self._asked = client.ResponseCreate()
            case server.ResponseOutputItemAdded(item=Message(id=str() as item_id)):
                self._keep(item_id, _Answer())
                self._unfinished.add(item_id)
            case (
                server.ResponseOutputAudioTranscriptDelta()
                | server.ResponseOutputTextDelta()
                | server.ResponseOutputAudioDelta()
            ):
                answer = self._items.get(event.item_id)
                if isinstance(answer, _Answer):
                    self._more(answer, event)
            case server.ResponseFunctionCallArgumentsDone():
                call = FunctionCall(
                    id=event.item_id,
                    type="function_call",
                    call_id=event.call_id,
                    name=event.name,
                    arguments=event.arguments,
                )
                self._keep(event.item_id, call)
            case server.ErrorEvent() if event.error.code == NOTHING_SPOKEN:
                # It refuses a commit, and then the answer to it that was asked for.
                if self._commit_at is None:
                    self._asked = None
                self._commit_at = None
            case server.ResponseDone():
                self._asked = None
                self._unfinished.clear()

    def replay(self, unheard_ms: int = 0) -> Iterator[client.ClientEvent]:
        """What a new session must be sent, in order, to be where the old one was.

        An answer that was being given is asked for again, from its beginning. Of the newest sound
        so much had no server that could have heard it.
        """
        for item_id in self._unfinished:
            self._items.pop(item_id, None)
        self._unfinished.clear()
        if self._session:
            yield client.SessionUpdate(session=self._session)
        for item in self._told():
            yield client.ConversationItemCreate(item=item)
        self._retold = {name for name, item in self._items.items() if isinstance(item, _Answer)}
        self._begin_anew(unheard_ms)
        size = SLICE_MS * self._bytes_per_ms
        for at in range(0, len(self._input), size):
            yield client.InputAudioBufferAppend(audio=bytes(self._input[at : at + size]))
        if self._commit_at is not None:
            yield client.InputAudioBufferCommit()
        if self._asked is not None:
            yield self._asked

    def _replaced(self, event: client.ConversationItemTruncate) -> list[client.ClientEvent]:
        self._retold.discard(event.item_id)
        removal = client.ConversationItemDelete(item_id=event.item_id)
        answer = self._items.get(event.item_id)
        if not isinstance(answer, _Answer):
            return []
        answer.cut(event.audio_end_ms)
        new_id = random_id("item")
        self._items = {
            (new_id if name == event.item_id else name): item for name, item in self._items.items()
        }
        if not answer.words:
            return [removal]
        heard = client.ConversationItemCreate(
            previous_item_id=event.item_id, item=answer.as_message(new_id)
        )
        return [heard, removal]

    def _told(self) -> list[Item]:
        """The items, without what came before a turn that has neither sound nor words left."""
        told: list[Item] = []
        for item_id, item in reversed(self._items.items()):
            match item:
                case _Answer():
                    if item.words:
                        told.append(item.as_message(item_id))
                case _Turn():
                    if not item.sound and not item.words:
                        break
                    words = InputText(text=item.words)
                    sound = InputSound(audio=item.sound, transcript=item.words or None)
                    heard = sound if item.sound else words
                    told.append(Message(id=item_id, role="user", content=[heard]))
                case _:
                    told.append(item)
        calls = {item.call_id for item in told if isinstance(item, FunctionCall)}
        return [
            item
            for item in reversed(told)
            if not isinstance(item, FunctionCallOutput) or item.call_id in calls
        ]

    def _begin_anew(self, unheard_ms: int) -> None:
        """The new session's sound begins with what no item holds of the old one's."""
        pending = self._told_until
        if self._speech_from is not None:
            pending = max(pending, self._speech_from)
        elif self._hears_turns:
            pending = max(pending, self._heard_until() - unheard_ms - LISTEN_MS)
        self._forget_input(pending)
        if self._commit_at is not None:
            # A session that hears turns finds their end by itself; what was cleared is no turn.
            is_due = not self._hears_turns and self._commit_at > self._told_until
            self._commit_at = len(self._input) // self._bytes_per_ms if is_due else None
        self._input_from = self._told_until = 0
        if self._speech_from is not None:
            self._speech_from = 0  # until the new session says where, if it comes to that

    def _heard_until(self) -> int:
        return self._input_from + len(self._input) // self._bytes_per_ms

    def _forget_input(self, before: int) -> None:
        if before > self._input_from:
            before = min(before, self._heard_until())
            del self._input[: (before - self._input_from) * self._bytes_per_ms]
            self._input_from = before

    def _commit(self, item_id: str) -> None:
        begin = self._told_until if self._speech_from is None else self._speech_from
        end = self._heard_until() if self._commit_at is None else self._commit_at
        first, last = (max(0, ms - self._input_from) * self._bytes_per_ms for ms in (begin, end))
        if self._speech_from is not None and self._answers_itself:
            self._asked = client.ResponseCreate()
        self._keep(item_id, _Turn(bytes(self._input[first:last])))
        self._told_until = max(self._told_until, end)
        self._speech_from = self._commit_at = None

    def _keep(self, item_id: str, item: Item | _Turn | _Answer) -> None:
        self._items[item_id] = item
        sound = 0
        for old in reversed(self._items.values()):
            if isinstance(old, _Turn):
                sound += len(old.sound)
                if sound > SOUND_MS * self._bytes_per_ms:
                    old.sound = b""
        while len(self._items) > MOST_ITEMS:
            del self._items[next(iter(self._items))]

    def _more(
        self,
        answer: _Answer,
        event: server.ResponseOutputAudioTranscriptDelta
        | server.ResponseOutputTextDelta
        | server.ResponseOutputAudioDelta,
    ) -> None:
        if isinstance(event, server.ResponseOutputAudioDelta):
            answer.sound_bytes += len(event.delta) // 4 * 3 - event.delta[-2:].count("=")
        else:
            answer.words.append((answer.sound_bytes // self._bytes_per_ms, event.delta))
