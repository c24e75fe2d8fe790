"""Every event that the server sends, in the names of the OpenAI Realtime GA protocol.

Clients parse what they receive with `SERVER_EVENTS`. The beta's names are made of these at the
edge, in `protocol.beta`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.transcription_types import (
    DurationUsage,
    TokenLogprob,
    TranscriptionError,
    TranscriptionSession,
)
from aqaa.server.protocol.types import (
    ContentPart,
    Error,
    Item,
    RateLimit,
    Response,
    RetrievedMessage,
    Usage,
    Wire,
    is_unset,
)


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
    session: Session | TranscriptionSession


class SessionUpdated(FromServer):
    """The whole session after an update."""

    type: Literal["session.updated"] = "session.updated"
    session: Session | TranscriptionSession


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
    item: Item | RetrievedMessage


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


Logprobs = list[TokenLogprob]


class OfTranscription(FromServer):
    """Any event about the words of a user's item: deltas, then exactly one of the other two."""

    item_id: str
    content_index: int = 0


class InputAudioTranscriptionDelta(OfTranscription):
    """More of what the user said."""

    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta"
    )
    delta: str
    logprobs: list[TokenLogprob] | None = Field(default=None, exclude_if=is_unset)


class InputAudioTranscriptionCompleted(OfTranscription):
    """All that the user said."""

    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed"
    )
    transcript: str
    usage: DurationUsage
    logprobs: list[TokenLogprob] | None = Field(default=None, exclude_if=is_unset)


class InputAudioTranscriptionFailed(OfTranscription):
    """What the user said is not known."""

    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed"
    )
    error: TranscriptionError


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
    """Any event that belongs to an output item of a response; what is said is the first of them."""

    response_id: str
    output_index: int = 0


class ResponseOutputItemAdded(OfResponse):
    """An item of the answer, still empty."""

    type: Literal["response.output_item.added"] = "response.output_item.added"
    item: Item


class ResponseOutputItemDone(OfResponse):
    """An item of the answer, whole."""

    type: Literal["response.output_item.done"] = "response.output_item.done"
    item: Item


class OfCall(OfResponse):
    """Any event about the arguments of a call."""

    item_id: str
    call_id: str


class ResponseFunctionCallArgumentsDelta(OfCall):
    """Arguments; all at once, for a call is told when it is whole."""

    type: Literal["response.function_call_arguments.delta"] = (
        "response.function_call_arguments.delta"
    )
    delta: str


class ResponseFunctionCallArgumentsDone(OfCall):
    """The function is to be called with these arguments, JSON."""

    type: Literal["response.function_call_arguments.done"] = "response.function_call_arguments.done"
    name: str
    arguments: str


class OfContent(OfResponse):
    """Any event that belongs to the one content part of what is said."""

    item_id: str
    content_index: int = 0


class ResponseContentPartAdded(OfContent):
    """The part that deltas will fill."""

    type: Literal["response.content_part.added"] = "response.content_part.added"
    part: ContentPart


class ResponseContentPartDone(OfContent):
    """The filled part."""

    type: Literal["response.content_part.done"] = "response.content_part.done"
    part: ContentPart


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
    audio_start_ms: int | None = Field(default=None, exclude_if=is_unset)


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


class InterruptionReported(FromServer):
    """Extension `interruptions`: somebody seems to speak into the answer; later, why it goes on.

    If it is interrupted, `input_audio_buffer.speech_started` tells so instead.
    """

    type: Literal["aqaa.interruption"] = "aqaa.interruption"
    state: Literal["suspected", "dismissed"]
    reason: Literal["backchannel", "noise", "echo"] | None = None


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
    | InputAudioTranscriptionDelta
    | InputAudioTranscriptionCompleted
    | InputAudioTranscriptionFailed
    | ResponseCreated
    | ResponseDone
    | RateLimitsUpdated
    | ResponseOutputItemAdded
    | ResponseOutputItemDone
    | ResponseFunctionCallArgumentsDelta
    | ResponseFunctionCallArgumentsDone
    | ResponseContentPartAdded
    | ResponseContentPartDone
    | ResponseOutputTextDelta
    | ResponseOutputTextDone
    | ResponseOutputAudioDelta
    | ResponseOutputAudioDone
    | ResponseOutputAudioTranscriptDelta
    | ResponseOutputAudioTranscriptDone
    | LatencyReported
    | InterruptionReported
)

SERVER_EVENTS: TypeAdapter[ServerEvent] = TypeAdapter(
    Annotated[ServerEvent, Field(discriminator="type")]
)


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
