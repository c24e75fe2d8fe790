"""What clients do with conversation items, and what is said about each change."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.item_list import ROOT, ItemList
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.types import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputItem,
    InputSound,
    InputText,
    ItemReference,
    Message,
    OutputSound,
    OutputText,
    RetrievedMessage,
    RetrievedSound,
    WireFormat,
    bytes_per_second,
)

Output = server.ServerEvent | fx.Effect
MakeId = Callable[[str], str]

PARTS_OF = {  # OpenAI's rule
    "user": ("input_text", "input_audio"),
    "system": ("input_text",),
    "assistant": ("output_text", "output_audio"),
}
ITEM_CHARACTERS = 16  # that an item counts for beside its text: its turn's marks


class Items:
    """The conversation, and the events and effects of every change to it."""

    def __init__(self, limits: Limits, make_id: MakeId) -> None:
        self.conversation = ItemList(limits.items, limits.conversation_text, characters_of)
        self._limits = limits
        self._make_id = make_id
        self._fetching: list[fx.FetchSound] = []  # sounds of items that have not left since
        # Told of ids that are free again: methods, which are copied with what they are of.
        self.on_gone: list[Callable[[str], None]] = [self._forget_fetches]

    def known(self, item_id: str, code: str) -> fx.ConversationItem:
        """The item of this id.

        Raises:
            ProtocolError: there is none; with this code.
        """
        item = self.conversation.get(item_id)
        if item is None:
            raise ProtocolError(code, f"no item {item_id!r} in the conversation", "item_id")
        return item

    def unknown(self, item_ids: Iterable[str | None]) -> tuple[str, ...]:
        """Of these items, those that are not in the conversation."""
        return tuple(i for i in item_ids if i is not None and i not in self.conversation)

    def create(
        self, event: client.ConversationItemCreate, reserved: str, format: WireFormat
    ) -> list[Output]:
        """A client's new item; `reserved` is an id that is promised to another.

        Its sound is in `format`.

        Raises:
            ProtocolError: the id is taken, the place is unknown, the content is unusable, or it is
                the output of no call that is known.
        """
        item_id = event.item.id or self._make_id("item")
        if item_id in self.conversation or item_id in (reserved, ROOT):
            raise ProtocolError(
                "item_create_duplicate_item_id",
                f"Error adding item: an item with id {item_id!r} already exists.",
            )
        _check_call(event.item, self.conversation)
        _check_content(event.item, "item")
        item, sounds = self._take_in(item_id, event.item, format)
        return [*sounds, *self.add(item_id, item, event.previous_item_id)]

    def add(
        self, item_id: str, item: fx.ConversationItem, after: str | None = None
    ) -> list[Output]:
        """Put a whole item in its place.

        Raises:
            ProtocolError: `after` is unknown.
        """
        dropped = self.insert(item_id, item, after)
        previous = self.conversation.previous_id(item_id)
        return [
            *dropped,
            server.ConversationItemAdded(
                event_id=self._event_id(), previous_item_id=previous, item=item
            ),
            server.ConversationItemDone(
                event_id=self._event_id(), previous_item_id=previous, item=item
            ),
        ]

    def insert(
        self, item_id: str, item: fx.ConversationItem, after: str | None = None
    ) -> list[Output]:
        """Put an item in its place and say nothing of it, but of those that had to leave for it.

        Raises:
            ProtocolError: `after` is unknown.
        """
        try:
            dropped = self.conversation.insert(item_id, item, after)
        except KeyError:
            raise ProtocolError(
                "item_not_found", f"no item {after!r} to put it after", "previous_item_id"
            ) from None
        return [out for old in dropped for out in self._gone(old)]

    def delete(self, item_id: str) -> list[Output]:
        """Take a known item out."""
        self.conversation.remove(item_id)
        return self._gone(item_id)

    def retrieve(self, event: client.ConversationItemRetrieve, format: WireFormat) -> list[Output]:
        """The item that a client asks for, or, where it has sound, that sound first.

        A user's is wanted in `format`.

        Raises:
            ProtocolError: there is no such item.
        """
        item = self.known(event.item_id, "item_retrieve_invalid_item_id")
        if not isinstance(item, Message) or not any(_is_sound(part) for part in item.content):
            return [server.ConversationItemRetrieved(event_id=self._event_id(), item=item)]
        wanted = format if item.role == "user" else None
        fetch = fx.FetchSound(event.item_id, event.event_id, wanted)
        self._fetching.append(fetch)
        return [fetch]

    def retrieved(self, given: fx.SoundFetched) -> list[Output]:
        """The item as it is now, with all of its sound in the first part that has any.

        Raises:
            ProtocolError: it has left the conversation.
        """
        code, item_id = "item_retrieve_invalid_item_id", given.wanted.item_id
        others = [one for one in self._fetching if one is not given.wanted]
        if len(others) == len(self._fetching):  # another item may have its id by now
            raise ProtocolError(code, f"the item {item_id!r} has left the conversation", "item_id")
        self._fetching = others
        item = self.known(item_id, code)
        assert isinstance(item, Message)
        audio = given.audio
        content: list[InputText | OutputText | RetrievedSound] = []
        for part in item.content:
            if isinstance(part, InputSound | OutputSound):
                content.append(
                    RetrievedSound(type=part.type, transcript=part.transcript, audio=audio)
                )
                audio = None
            else:
                content.append(part)
        message = RetrievedMessage(id=item.id, status=item.status, role=item.role, content=content)
        return [server.ConversationItemRetrieved(event_id=self._event_id(), item=message)]

    def context(
        self, given: Iterable[InputItem], format: WireFormat
    ) -> tuple[tuple[fx.ConversationItem, ...], list[Output]]:
        """The items that `response.create` names or brings, and where their sound goes.

        Raises:
            ProtocolError: a reference to no item, unusable content, the output of no call among
                the items, or more text or sound than a conversation may have.
        """
        items: list[fx.ConversationItem] = []
        sounds: list[Output] = []
        characters = 0
        for place, one in enumerate(given):
            if isinstance(one, ItemReference):
                items.append(self.known(one.id, "item_not_found"))
            else:
                # an id of its own: an inline item never stands for one of the conversation
                _check_call(one, items)
                _check_content(one, f"response.input.{place}")
                item, stored = self._take_in(self._make_id("item"), one, format)
                items.append(item)
                sounds += stored
                characters += characters_of(item)
        if characters > self._limits.conversation_text:
            raise ProtocolError(
                "string_above_max_length",
                f"response.input may have {self._limits.conversation_text} characters in all; this"
                f" has {characters}",
                "response.input",
            )
        size = sum(len(stored.data) for stored in sounds if isinstance(stored, fx.StoreAudio))
        self._check_seconds(size, format, "response.input")
        return tuple(items), sounds

    def _take_in(
        self, item_id: str, item: fx.ConversationItem, format: WireFormat
    ) -> tuple[fx.ConversationItem, list[Output]]:
        """The item as it is kept (with its id, without its sound), and where its sound goes."""
        self._limits.check_text(_text(item), "item.content")
        if not isinstance(item, Message):
            return item.model_copy(update={"id": item_id}), []
        parts = [
            InputSound(transcript=part.transcript) if isinstance(part, InputSound) else part
            for part in item.content
        ]
        given = [
            part.audio
            for part in item.content
            if isinstance(part, InputSound) and (part.audio or part.transcript is None)
        ]
        sound = b"".join(audio or b"" for audio in given)
        self._check_seconds(len(sound), format, "item.content")
        kept = item.model_copy(update={"id": item_id, "status": "completed", "content": parts})
        return kept, [fx.StoreAudio(item_id, sound)] if given else []

    def _forget_fetches(self, item_id: str) -> None:
        self._fetching = [one for one in self._fetching if one.item_id != item_id]

    def _check_seconds(self, size: int, format: WireFormat, param: str) -> None:
        seconds, most = size / bytes_per_second(format), self._limits.audio_seconds
        if seconds > most:
            raise ProtocolError(
                "invalid_value",
                f"{param} may have {most:g} s of sound; this has {seconds:.0f} s",
                param,
            )

    def _gone(self, item_id: str) -> list[Output]:
        for tell in self.on_gone:
            tell(item_id)
        return [
            fx.ForgetItem(item_id),
            server.ConversationItemDeleted(event_id=self._event_id(), item_id=item_id),
        ]

    def _event_id(self) -> str:
        return self._make_id("event")


def _check_call(item: fx.ConversationItem, known: Iterable[fx.ConversationItem]) -> None:
    if not isinstance(item, FunctionCallOutput):
        return
    if not any(isinstance(one, FunctionCall) and one.call_id == item.call_id for one in known):
        raise ProtocolError(
            "invalid_tool_call_id", f"Tool call ID {item.call_id!r} not found in conversation."
        )


def _check_content(item: fx.ConversationItem, path: str) -> None:
    """Refuse a part that no message of its role has: it would be taken for something else."""
    if not isinstance(item, Message):
        return
    known = PARTS_OF[item.role]
    for place, part in enumerate(item.content):
        if part.type not in known:
            param = f"{path}.content.{place}.type"
            named = " and ".join(repr(kind) for kind in known)
            raise ProtocolError(
                "invalid_value",
                f"{param}: a message of the {item.role} has parts of type {named}, not"
                f" {part.type!r}",
                param,
            )
        if isinstance(part, InputSound) and part.audio is None and part.transcript is None:
            param = f"{path}.content.{place}.audio"
            raise ProtocolError("missing_required_parameter", f"{param}: Field required", param)


def characters_of(item: fx.ConversationItem) -> int:
    """Characters that the item takes: of its text, and some for itself."""
    return len(_text(item)) + ITEM_CHARACTERS


def _is_sound(part: Content) -> bool:
    return isinstance(part, InputSound | OutputSound)


def _text(item: fx.ConversationItem) -> str:
    match item:
        case FunctionCallOutput():
            return item.call_id + item.output
        case FunctionCall():
            return (item.call_id or "") + item.name + item.arguments
        case Message():
            return "".join(
                (part.transcript or "") if isinstance(part, InputSound | OutputSound) else part.text
                for part in item.content
            )
