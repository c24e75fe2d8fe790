"""What a legal Realtime server says: a reader that objects to the first event out of order."""

from __future__ import annotations

from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import FunctionCall

# What may follow what within one response; `delta` stands for any number of deltas.
SPOKEN_END = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
]
WRITTEN_END = ["response.output_text.done", *SPOKEN_END[2:]]
START = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
]
DELTAS = {
    "audio": {"response.output_audio.delta", "response.output_audio_transcript.delta"},
    "text": {"response.output_text.delta"},
}
CALL = [
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
]


class IllegalSequenceError(AssertionError):
    """The server said something that it may not say here."""


class Reader:
    """Reads every event of one session, in order."""

    def __init__(self) -> None:
        self.order: list[str] = []  # the conversation, as the events tell it
        self.open: dict[str, list[str]] = {}
        self.modality: dict[str, str] = {}
        self.default: set[str] = set()
        self.done: dict[str, int] = {}
        self.item_of: dict[str, str] = {}
        self.calls: dict[str, dict[str, list[str]]] = {}  # by response, by item: its events so far
        self.speaking: str | None = None
        self.unfinished: set[str] = set()  # items that were added and are not done
        self.transcribed: set[str] = set()  # items whose words have been told
        self._event_ids: set[str] = set()

    def read(self, event: server.ServerEvent) -> None:
        _check(event.event_id not in self._event_ids, f"event id {event.event_id} came twice")
        self._event_ids.add(event.event_id)
        match event:
            case server.ResponseCreated():
                self._created(event)
            case server.RateLimitsUpdated():
                for steps in self.open.values():
                    if steps == START[:1]:
                        steps.append(event.type)
            case server.InputAudioBufferSpeechStarted():
                _check(self.speaking is None, "speech started twice")
                self.speaking = event.item_id
            case server.InputAudioBufferSpeechStopped():
                _check(self.speaking == event.item_id, "speech stopped that had not started")
            case server.InputAudioBufferCommitted():
                _check(self.speaking in (None, event.item_id), "another item was committed")
                self.speaking = None
                _check(event.previous_item_id == self._last(), "committed after the wrong item")
            case server.InputAudioBufferCleared():
                self.speaking = None
            case server.SessionUpdated() if event.session.audio.input.turn_detection is None:
                self.speaking = None  # whoever spoke, nobody watches for the end any more
            case server.ConversationItemAdded():
                self._item_added(event)
            case server.ConversationItemDone():
                self._item_done(event)
            case server.ConversationItemDeleted():
                _check(event.item_id in self.order, "an unknown item was deleted")
                self.order.remove(event.item_id)
            case server.OfTranscription():
                self._words(event)
            case server.ResponseDone():
                self._step(event.response.id, event.type)
                _check(event.response.usage is not None, "a finished response has no usage")
                self._finish(event.response.id)
            case server.ResponseOutputItemAdded(item=FunctionCall(id=str(item_id))):
                self._call_added(event, item_id)
            case server.ResponseOutputItemDone(item=FunctionCall(id=str(item_id))):
                self._call_step(event.response_id, item_id, event.type)
            case server.OfCall():
                self._call_step(event.response_id, event.item_id, event.type)
            case server.OfResponse():
                if isinstance(event, server.ResponseOutputItemAdded):
                    _check(event.output_index == 0, "what is said is not the first item")
                    self.item_of[event.response_id] = event.item.id or ""
                self._step(event.response_id, event.type)
            case _:
                pass

    def _words(self, event: server.OfTranscription) -> None:
        _check(event.item_id in self.order, f"{event.type} of no item of the conversation")
        _check(event.item_id not in self.unfinished, f"{event.type} before its item is done")
        _check(event.item_id not in self.transcribed, f"{event.type} after the words were told")
        if not isinstance(event, server.InputAudioTranscriptionDelta):
            self.transcribed.add(event.item_id)

    def _call_added(self, event: server.ResponseOutputItemAdded, item_id: str) -> None:
        response = event.response_id
        _check(response in self.open, "a call of a response that is not open")
        said = self.open[response][2:]  # response.created and rate_limits.updated are before
        _check(not said or said[-1] == "response.output_item.done", "a call amid what is said")
        calls = self.calls.setdefault(response, {})
        _check(event.output_index == bool(said) + len(calls), "a call at the wrong output_index")
        calls[item_id] = []
        self._call_step(response, item_id, event.type)

    def _call_step(self, response_id: str, item_id: str, kind: str) -> None:
        steps = self.calls[response_id][item_id]
        steps.append(kind)
        legal = [step for step in CALL if self._applies(response_id, step)]
        _check(steps == legal[: len(steps)], f"{item_id}: {steps}")

    def _created(self, event: server.ResponseCreated) -> None:
        response = event.response
        _check(response.id not in self.done, "a response was created twice")
        self.done[response.id] = 0
        self.open[response.id] = [event.type]
        self.modality[response.id] = response.output_modalities[0]
        if response.conversation_id is not None:
            _check(not self.default & set(self.open), "two responses write the conversation")
            self.default.add(response.id)

    def _item_added(self, event: server.ConversationItemAdded) -> None:
        assert event.item.id is not None
        place = 0 if event.previous_item_id is None else self._place(event.previous_item_id) + 1
        self.order.insert(place, event.item.id)
        self.unfinished.add(event.item.id)
        self._step_of_item(event.item.id, event.type)

    def _item_done(self, event: server.ConversationItemDone) -> None:
        assert event.item.id is not None
        self.unfinished.discard(event.item.id)
        self._step_of_item(event.item.id, event.type)

    def _step_of_item(self, item_id: str, kind: str) -> None:
        for response_id, calls in self.calls.items():
            if item_id in calls and response_id in self.open:
                self._call_step(response_id, item_id, kind)
        for response_id, own in self.item_of.items():
            if own == item_id and response_id in self.open:
                self._step(response_id, kind)

    def _step(self, response_id: str, kind: str) -> None:
        _check(response_id in self.open, f"{kind} for a response that is not open")
        steps, modality = self.open[response_id], self.modality[response_id]
        start = [s for s in START if self._applies(response_id, s)]
        end = SPOKEN_END if modality == "audio" else WRITTEN_END
        end = [s for s in end if self._applies(response_id, s)]
        if kind in DELTAS["audio"] | DELTAS["text"]:
            _check(kind in DELTAS[modality], f"{kind} in a response of {modality}")
            _check(steps == start, f"{kind} before its part was added or after it was done")
            return
        legal = {tuple(start[: n + 1]) for n in range(len(start))}
        legal |= {(*start, *end[: n + 1]) for n in range(len(end))}
        legal.add((*START[:2], "response.done"))  # it ended before it said anything
        steps.append(kind)
        _check(tuple(steps) in legal, f"{response_id}: {steps}")

    def _applies(self, response_id: str, kind: str) -> bool:
        """The conversation's item events are for the default conversation's responses only."""
        return response_id in self.default or not kind.startswith("conversation.")

    def _finish(self, response_id: str) -> None:
        self.done[response_id] += 1
        whole = len([step for step in CALL if self._applies(response_id, step)])
        calls = self.calls.get(response_id, {})
        _check(all(len(steps) == whole for steps in calls.values()), "a call is not whole")
        del self.open[response_id]

    def _place(self, item_id: str) -> int:
        _check(item_id in self.order, f"{item_id} is not in the conversation")
        return self.order.index(item_id)

    def _last(self) -> str | None:
        return self.order[-1] if self.order else None


def _check(condition: bool, complaint: str) -> None:
    if not condition:
        raise IllegalSequenceError(complaint)
