"""Every event of the wire, client's and server's, of the OpenAI Realtime GA protocol.

One file, one discriminated union for each direction. A client's message is validated once, by
`parse_client_event`, and is a typed value from there on. Beta names live in `protocol.beta` only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from aqaa.server.protocol.types import (
    Error,
    Item,
    Json,
    Part,
    RateLimit,
    Response,
    ResponseOptions,
    Session,
    Usage,
    Wire,
)


class ProtocolError(Exception):
    """A message that is no legal client event: sent back as an `error` event, session unharmed."""

    def __init__(
        self, code: str, message: str, param: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.event_id = event_id


# --- from the client ------------------------------------------------------------------------------


class FromClient(Wire):
    """Any client event; its own `event_id` comes back in an error that it causes."""

    event_id: str | None = None


class SessionUpdate(FromClient):
    """Changes the keys that it names (a partial session, laid over the present one)."""

    type: Literal["session.update"] = "session.update"
    session: Json


class InputAudioBufferAppend(FromClient):
    """Base64 audio in the session's input format. Never acknowledged."""

    type: Literal["input_audio_buffer.append"] = "input_audio_buffer.append"
    audio: str


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
    previous_item_id: str | None = None
    item: Item


class ConversationItemRetrieve(FromClient):
    """Asks for an item as the server knows it."""

    type: Literal["conversation.item.retrieve"] = "conversation.item.retrieve"
    item_id: str


class ConversationItemTruncate(FromClient):
    """Cuts an assistant item at what was heard of it."""

    type: Literal["conversation.item.truncate"] = "conversation.item.truncate"
    item_id: str
    content_index: int = 0
    audio_end_ms: int = Field(ge=0)


class ConversationItemDelete(FromClient):
    """Removes an item."""

    type: Literal["conversation.item.delete"] = "conversation.item.delete"
    item_id: str


class ResponseCreate(FromClient):
    """Asks for an answer."""

    type: Literal["response.create"] = "response.create"
    response: ResponseOptions | None = None


class ResponseCancel(FromClient):
    """Stops the named answer, or the one that is running in the default conversation."""

    type: Literal["response.cancel"] = "response.cancel"
    response_id: str | None = None


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


# --- from the server ------------------------------------------------------------------------------


class FromServer(Wire):
    """Any server event."""

    event_id: str


class ErrorEvent(FromServer):
    """A client event was refused, or something broke; the session goes on."""

    type: Literal["error"] = "error"
    error: Error


class SessionCreated(FromServer):
    """The first event of a session."""

    type: Literal["session.created"] = "session.created"
    session: Session


class SessionUpdated(FromServer):
    """The whole session after an update."""

    type: Literal["session.updated"] = "session.updated"
    session: Session


class InputAudioBufferSpeechStarted(FromServer):
    """Speech was heard; `audio_start_ms` includes the prefix padding."""

    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class InputAudioBufferSpeechStopped(FromServer):
    """The user's turn is over."""

    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


class InputAudioBufferTimeoutTriggered(FromServer):
    """Nothing was said for `idle_timeout_ms` after the last answer."""

    type: Literal["input_audio_buffer.timeout_triggered"] = "input_audio_buffer.timeout_triggered"
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class InputAudioBufferCommitted(FromServer):
    """The buffered audio is now this user item."""

    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    previous_item_id: str | None
    item_id: str


class InputAudioBufferCleared(FromServer):
    """The buffer is empty."""

    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class ConversationItemAdded(FromServer):
    """An item entered the conversation, perhaps still in progress."""

    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None
    item: Item


class ConversationItemDone(FromServer):
    """An item has its final shape."""

    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None
    item: Item


class ConversationItemRetrieved(FromServer):
    """The answer to a retrieve."""

    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: Item


class ConversationItemTruncated(FromServer):
    """The item now ends where it was cut."""

    type: Literal["conversation.item.truncated"] = "conversation.item.truncated"
    item_id: str
    content_index: int
    audio_end_ms: int


class ConversationItemDeleted(FromServer):
    """The item is gone."""

    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class ResponseCreated(FromServer):
    """An answer begins."""

    type: Literal["response.created"] = "response.created"
    response: Response


class ResponseDone(FromServer):
    """An answer is over: sent exactly once for each `response.created`."""

    type: Literal["response.done"] = "response.done"
    response: Response


class RateLimitsUpdated(FromServer):
    """Sent at the start of a response; empty, since this server counts sessions, not tokens."""

    type: Literal["rate_limits.updated"] = "rate_limits.updated"
    rate_limits: tuple[RateLimit, ...] = ()


class OfResponse(FromServer):
    """Any event that belongs to a response's one output item."""

    response_id: str
    output_index: int = 0


class ResponseOutputItemAdded(OfResponse):
    """The answer's item, still empty."""

    type: Literal["response.output_item.added"] = "response.output_item.added"
    item: Item


class ResponseOutputItemDone(OfResponse):
    """The answer's item, whole."""

    type: Literal["response.output_item.done"] = "response.output_item.done"
    item: Item


class OfContent(OfResponse):
    """Any event that belongs to a response's one content part."""

    item_id: str
    content_index: int = 0


class ResponseContentPartAdded(OfContent):
    """The part that deltas will fill."""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: Part


class ResponseContentPartDone(OfContent):
    """The filled part."""

    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: Part


class ResponseOutputTextDelta(OfContent):
    """More text of a text answer."""

    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    delta: str


class ResponseOutputTextDone(OfContent):
    """The whole text of a text answer."""

    type: Literal["response.output_text.done"] = "response.output_text.done"
    text: str


class ResponseOutputAudioDelta(OfContent):
    """More sound: base64 in the response's output format."""

    type: Literal["response.output_audio.delta"] = "response.output_audio.delta"
    delta: str


class ResponseOutputAudioDone(OfContent):
    """No more sound follows."""

    type: Literal["response.output_audio.done"] = "response.output_audio.done"


class ResponseOutputAudioTranscriptDelta(OfContent):
    """More of the text that goes with the sound.

    `audio_start_ms`, where in the answer's sound this text is spoken (an estimate), is sent only
    to clients that asked for the `captions` extension.
    """

    type: Literal["response.output_audio_transcript.delta"] = (
        "response.output_audio_transcript.delta"
    )
    delta: str
    audio_start_ms: int | None = Field(default=None, exclude_if=lambda value: value is None)


class ResponseOutputAudioTranscriptDone(OfContent):
    """The whole text that goes with the sound."""

    type: Literal["response.output_audio_transcript.done"] = "response.output_audio_transcript.done"
    transcript: str


class LatencyReported(FromServer):
    """Extension `latency`, right after an answer's first sound: what it had to wait for.

    `stages` maps a stage's name to milliseconds (`observe.latency` defines the names).
    """

    type: Literal["aqaa.latency"] = "aqaa.latency"
    response_id: str
    stages: dict[str, float]


ServerEvent = (
    ErrorEvent
    | SessionCreated
    | SessionUpdated
    | InputAudioBufferSpeechStarted
    | InputAudioBufferSpeechStopped
    | InputAudioBufferTimeoutTriggered
    | InputAudioBufferCommitted
    | InputAudioBufferCleared
    | ConversationItemAdded
    | ConversationItemDone
    | ConversationItemRetrieved
    | ConversationItemTruncated
    | ConversationItemDeleted
    | ResponseCreated
    | ResponseDone
    | RateLimitsUpdated
    | ResponseOutputItemAdded
    | ResponseOutputItemDone
    | ResponseContentPartAdded
    | ResponseContentPartDone
    | ResponseOutputTextDelta
    | ResponseOutputTextDone
    | ResponseOutputAudioDelta
    | ResponseOutputAudioDone
    | ResponseOutputAudioTranscriptDelta
    | ResponseOutputAudioTranscriptDone
    | LatencyReported
)

CLIENT_EVENTS: TypeAdapter[ClientEvent] = TypeAdapter(
    Annotated[ClientEvent, Field(discriminator="type")]
)
SERVER_EVENTS: TypeAdapter[ServerEvent] = TypeAdapter(
    Annotated[ServerEvent, Field(discriminator="type")]
)


def parse_client_event(message: Json) -> ClientEvent:
    """The typed event that a decoded message is.

    Raises:
        ProtocolError: no `type`, an unknown one, or a field that is missing or wrong; names it.
    """
    event_id = message.get("event_id")
    known = event_id if isinstance(event_id, str) else None
    try:
        return CLIENT_EVENTS.validate_python(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] in ("union_tag_invalid", "union_tag_not_found") and not first["loc"]:
            kind = message.get("type")
            raise ProtocolError(
                "invalid_value" if kind is not None else "missing_required_parameter",
                f"unknown event type {kind!r}" if kind is not None else "the event has no type",
                "type",
                known,
            ) from None
        # loc[0] is the union's tag; what follows is the path in the message
        raise invalid(first["msg"], first["type"], first["loc"][1:], known) from None


def parse_server_event(message: str | bytes) -> ServerEvent:
    """The typed event that a server's message is (for clients).

    Raises:
        ValidationError: it is none of the events above.
    """
    return SERVER_EVENTS.validate_json(message)


def invalid(
    message: str, kind: str, location: tuple[int | str, ...], event_id: str | None
) -> ProtocolError:
    """The error for one failed field of a validation."""
    path = ".".join(str(part) for part in location)
    code = "missing_required_parameter" if kind == "missing" else "invalid_value"
    return ProtocolError(code, f"{path}: {message}" if path else message, path or None, event_id)


def token_usage(
    *,
    text_in: int,
    audio_in: int,
    cached_text: int,
    cached_audio: int,
    text_out: int,
    audio_out: int,
) -> Usage:
    """A `Usage` from its counts."""
    return Usage.model_validate(
        {
            "total_tokens": text_in + audio_in + text_out + audio_out,
            "input_tokens": text_in + audio_in,
            "output_tokens": text_out + audio_out,
            "input_token_details": {
                "text_tokens": text_in,
                "audio_tokens": audio_in,
                "cached_tokens": cached_text + cached_audio,
                "cached_tokens_details": {
                    "text_tokens": cached_text,
                    "audio_tokens": cached_audio,
                },
            },
            "output_token_details": {"text_tokens": text_out, "audio_tokens": audio_out},
        }
    )
