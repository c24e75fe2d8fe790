"""The conversation's answers, past ones too, and where each ends: with what was heard of it."""

from __future__ import annotations

from collections.abc import Callable

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.item_list import ROOT
from aqaa.server.protocol.items import Items, MakeId, Output
from aqaa.server.protocol.response import OpenResponse
from aqaa.server.protocol.types import FunctionCall, Message, OutputSound

TRUNCATE_SLACK_MS = 2000  # clients count what they played by a clock of their own: clamp, not error


class Answers:
    """The responses whose items are in the conversation, by item id."""

    def __init__(
        self,
        items: Items,
        heard_ms: Callable[[str], int | None],
        waits: Callable[[str], bool],
        make_id: MakeId,
    ) -> None:
        """None yet; the functions tell what `SessionMachine` takes them for."""
        self._items = items
        self._make_id = make_id
        self._heard_ms = heard_ms
        self._waits = waits
        self._responses: dict[str, OpenResponse] = {}
        items.on_gone.append(self._forget)

    def __contains__(self, item_id: str | None) -> bool:
        return item_id in self._responses

    def open(self, response: OpenResponse) -> list[Output]:
        """What is said begins: its item enters the conversation, if it is of it."""
        if response.opened or response.calls:
            return []
        item_id = response.run.item_id
        if not response.run.default:
            return [*response.open(None)]
        dropped = self._place(response, item_id, response.item("in_progress"))
        self._responses[item_id] = response
        return [*dropped, *response.open(self._items.conversation.previous_id(item_id))]

    def call(self, response: OpenResponse, given: fx.RunCall) -> list[Output]:
        """A function is called: a whole item, behind what was said before it."""
        call_id, item_id = self._make_id("call"), self._make_id("item")
        call = FunctionCall(id=item_id, call_id=call_id, name=given.name, arguments=given.arguments)
        if not response.run.default:
            return [*response.add_call(call, given.tokens, None)]
        kept = self._items.conversation
        dropped = self._place(response, item_id, call)
        events = response.add_call(call, given.tokens, kept.previous_id(item_id))
        kept.replace(response.run.item_id, response.item("completed"))
        return [*dropped, *events]

    def _forget(self, item_id: str) -> None:
        self._responses.pop(item_id, None)

    def _place(
        self, response: OpenResponse, item_id: str, item: fx.ConversationItem
    ) -> list[Output]:
        """Put an item of an answer behind what it answers, whatever came since."""
        before = response.question or ROOT
        if response.calls:
            before = response.calls[-1].id or ROOT
        elif response.opened:
            before = response.run.item_id
        known = before == ROOT or before in self._items.conversation
        return self._items.insert(item_id, item, before if known else None)

    def newest(self) -> str | None:
        """The answer that the conversation ends with, whatever it called and that gave back."""
        for item in reversed([*self._items.conversation]):
            if isinstance(item, Message):
                return item.id if item.id in self else None
        return None

    def going_on(self, item_id: str | None) -> OpenResponse | None:
        """A response that says the rest of this answer, which was cut; None: there is no such
        answer, or something has been said or called since."""
        answer = self._responses.get(item_id or "")
        if answer is None or answer.heard_ms is None or answer.calls or self.newest() != item_id:
            return None
        items = [*self._items.conversation]
        place = next(place for place, item in enumerate(items) if item.id == item_id)
        return answer.going_on(tuple(items[:place]), self._make_id)

    def after(self, item_id: str) -> list[str]:
        """The ids of the answers that stand behind this item; it may have left."""
        order = [item.id for item in self._items.conversation]
        place = order.index(item_id) if item_id in order else len(order)
        return [one for one in order[place:] if one is not None and one in self]

    def called_after(self, item_id: str) -> bool:
        """Whether a function was called behind this item: what is done cannot be taken back."""
        items = [*self._items.conversation]
        place = next((place for place, item in enumerate(items) if item.id == item_id), len(items))
        return any(isinstance(item, FunctionCall) for item in items[place:])

    def truncated(self, event: client.ConversationItemTruncate) -> tuple[OpenResponse, int]:
        """What a client truncates, and to how many milliseconds.

        Raises:
            ProtocolError: the item is unknown or is no spoken answer, or it never was so long.
        """
        self._items.known(event.item_id, "item_truncate_invalid_item_id")
        answer = self._responses.get(event.item_id)
        if answer is None or answer.run.modality != "audio":
            raise ProtocolError(
                "invalid_value", "only sound that the assistant spoke can be truncated", "item_id"
            )
        if event.content_index != 0:
            raise ProtocolError(
                "invalid_value", "the item has one content part: 0", "content_index"
            )
        if event.audio_end_ms > answer.audio_ms + TRUNCATE_SLACK_MS:
            raise ProtocolError(
                "invalid_value",
                f"Audio content of {answer.audio_ms}ms is already shorter than"
                f" {event.audio_end_ms}ms",
                "audio_end_ms",
            )
        return answer, min(event.audio_end_ms, answer.audio_ms)

    def cut_at_playhead(self, item_id: str) -> list[Output]:
        """The assistant falls silent early: its item ends with what was heard."""
        heard = self._heard_ms(item_id)
        return [] if heard is None else self.cut(item_id, heard, interrupted=True)

    def cancel_waiting(self, response_id: str | None) -> list[Output]:
        """The client cancels an answer that is complete: what waits of its sound is not sent.

        Nothing, if all of it is sent. `response_id` None: whichever answer it is.
        """
        for item_id, response in self._responses.items():
            if response_id in (None, response.run.response_id) and self._waits(item_id):
                return self.cut_at_playhead(item_id)
        return []

    def cut(self, item_id: str, audio_end_ms: int, *, interrupted: bool) -> list[Output]:
        """The assistant's item was heard up to here only; nothing is said to the client."""
        answer = self._responses.get(item_id)
        if answer is None or item_id not in self._items.conversation:
            return []
        item = Message(
            id=item_id,
            role="assistant",
            status="incomplete",
            content=[OutputSound(transcript=answer.heard_text(audio_end_ms))],
        )
        self._items.conversation.replace(item_id, item)
        answer.heard_ms = audio_end_ms
        return [fx.CutItem(item_id, audio_end_ms, interrupted)]
