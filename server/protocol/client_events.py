"""Every event that a client may send, in the names of the OpenAI Realtime GA protocol.

A message is validated once, by `parse_client_event`, and is a typed value from there on. The beta's
names are translated before that, in `protocol.beta`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from aqaa.server.protocol.errors import ProtocolError, invalid
from aqaa.server.protocol.known_keys import check_keys
from aqaa.server.protocol.types import (
    Base64,
    InputItem,
    InputSound,
    Item,
    Json,
    Lenient,
    Message,
    Name,
    ResponseOptions,
)


class FromClient(Lenient):
    """Any client event; its own `event_id` comes back in an error that it causes."""

    event_id: Name | None = None


class SessionUpdate(FromClient):
    """Changes the keys that it names (a partial session, laid over the present one)."""

    type: Literal["session.update"] = "session.update"
    session: Json


class InputAudioBufferAppend(FromClient):
    """Audio in the session's input format. Never acknowledged."""

    type: Literal["input_audio_buffer.append"] = "input_audio_buffer.append"
    audio: Base64


class InputAudioBufferCommit(FromClient):
    """Makes the buffered audio a user item."""

    type: Literal["input_audio_buffer.commit"] = "input_audio_buffer.commit"


class InputAudioBufferClear(FromClient):
    """Forgets the buffered audio."""

    type: Literal["input_audio_buffer.clear"] = "input_audio_buffer.clear"


class OutputAudioBufferClear(FromClient):
    """WebRTC and SIP only; an error here."""

    type: Literal["output_audio_buffer.clear"] = "output_audio_buffer.clear"


class ConversationItemCreate(FromClient):
    """Adds an item after `previous_item_id` (`root`: first; absent: last)."""

    type: Literal["conversation.item.create"] = "conversation.item.create"
    previous_item_id: Name | None = None
    item: Item


class ConversationItemRetrieve(FromClient):
    """Asks for an item as the server knows it."""

    type: Literal["conversation.item.retrieve"] = "conversation.item.retrieve"
    item_id: Name


class ConversationItemTruncate(FromClient):
    """Cuts an assistant item at what was heard of it."""

    type: Literal["conversation.item.truncate"] = "conversation.item.truncate"
    item_id: Name
    content_index: int = 0
    audio_end_ms: int = Field(ge=0)


class ConversationItemDelete(FromClient):
    """Removes an item."""

    type: Literal["conversation.item.delete"] = "conversation.item.delete"
    item_id: Name


class ResponseCreate(FromClient):
    """Asks for an answer."""

    type: Literal["response.create"] = "response.create"
    response: ResponseOptions | None = None


class ResponseCancel(FromClient):
    """Stops the named answer, or the one that is running in the default conversation."""

    type: Literal["response.cancel"] = "response.cancel"
    response_id: Name | None = None


ClientEvent = (
    SessionUpdate
    | InputAudioBufferAppend
    | InputAudioBufferCommit
    | InputAudioBufferClear
    | OutputAudioBufferClear
    | ConversationItemCreate
    | ConversationItemRetrieve
    | ConversationItemTruncate
    | ConversationItemDelete
    | ResponseCreate
    | ResponseCancel
)

CLIENT_EVENTS: TypeAdapter[ClientEvent] = TypeAdapter(
    Annotated[ClientEvent, Field(discriminator="type")]
)


def parse_client_event(message: Json) -> ClientEvent:
    """The typed event that a decoded message is.

    Raises:
        ProtocolError: no `type`, an unknown one, or a field that is missing or wrong; names it.
    """
    known = event_id_of(message)
    try:
        event = CLIENT_EVENTS.validate_python(message)
    except ValidationError as error:
        raise invalid(error, message, event_id=known) from None
    try:
        check_keys(message, "", type(event))
    except ProtocolError as error:
        error.event_id = known
        raise
    return event


def brings_sound(event: ClientEvent) -> bool:
    """Whether items come with the event that hold sound."""
    match event:
        case ConversationItemCreate():
            items: list[InputItem] = [event.item]
        case ResponseCreate(response=ResponseOptions(input=[*items])):
            pass
        case _:
            return False
    parts = [part for item in items if isinstance(item, Message) for part in item.content]
    return any(isinstance(part, InputSound) and part.audio for part in parts)


def event_id_of(message: Json) -> str | None:
    """The id that the client gave its message, for an error that it causes."""
    event_id = message.get("event_id")
    return event_id[:512] if isinstance(event_id, str) else None
