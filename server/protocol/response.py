"""One answer on the wire: from `response.created` to its single `response.done`.

The order of events is that of the OpenAI service (GA). The first output item is what is said, with
one content part: sound with its transcript, or text. Both are announced by the first delta, so an
answer that is cancelled before it says anything has an empty `output`. Each call of a function is
an item of its own behind it, told whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import Literal

from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.base64_data import encode_base64
from aqaa.server.protocol.effects import ConversationItem, RunStarted, RunText, StartRun
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.items import MakeId
from aqaa.server.protocol.limits import NO_SPEECH
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.tools import STRANGER, names_a_stranger
from aqaa.server.protocol.types import (
    ContentPart,
    FunctionCall,
    MaxTokens,
    Message,
    OutputSound,
    OutputText,
    Response,
    ResponseAudio,
    ResponseOptions,
    ResponseOutputAudio,
    ResponseStatus,
    Status,
    StatusDetails,
    StatusError,
    bytes_per_second,
)

EventIds = Callable[[], str]
CancelReason = Literal["turn_detected", "client_cancelled"]

# What a failed response says to people, by its code.
FAILURES = {
    "engine_died": "The model stopped while it answered; ask again.",
    "engine_busy": "The model has no room for another answer now; ask again later.",
    "context_length_exceeded": "The conversation and the instructions are longer than the model"
    " can read: shorten or delete some of it.",
    NO_SPEECH: "Nobody speaks in the sound of the newest item: there is nothing to answer.",
    "invalid_tool_call": "The model began to call a function in a way that its declaration does not"
    " allow: nothing was called. Ask again.",
    "server_error": "The answer could not be given; ask again.",
    "internal_error": "The server failed because of a bug; its log has the reason.",
}


def planned_run(
    session: Session,
    options: ResponseOptions,
    items: tuple[ConversationItem, ...],
    voice: str,
    make_id: Callable[[str], str],
) -> StartRun:
    """What is asked for: the session's settings, but for what `options` say.

    Raises:
        ProtocolError: `options` want a function called that is not declared.
    """
    tools = tuple(session.tools if options.tools is None else options.tools)
    if names_a_stranger(options.tool_choice, tools):
        raise ProtocolError("invalid_value", STRANGER, "response.tool_choice")
    maximum = options.max_output_tokens or session.max_output_tokens
    parallel = options.parallel_tool_calls
    if parallel is None:
        parallel = session.parallel_tool_calls is not False
    instructions, output = options.instructions, session.audio.output
    return StartRun(
        response_id=make_id("resp"),
        item_id=make_id("item"),
        default=options.conversation == "auto",
        items=items,
        instructions=session.instructions if instructions is None else instructions,
        modality=(options.output_modalities or session.output_modalities)[0],
        voice=voice,
        speed=output.speed,
        format=options.audio.output.format or output.format,
        max_tokens=None if maximum == "inf" else maximum,
        truncation=session.truncation,
        tools=tools,
        tool_choice=options.tool_choice or session.tool_choice,
        parallel_tool_calls=parallel,
    )


class OpenResponse:
    """A response in progress. Methods return the events to send; `close` may be called once."""

    def __init__(
        self,
        run: StartRun,
        *,
        question: str | None,
        inline: tuple[str, ...],
        conversation_id: str | None,
        max_output_tokens: MaxTokens,
        metadata: dict[str, str] | None,
        event_id: EventIds,
    ) -> None:
        self.run = run
        self.question = question  # id of the conversation's last item when it was asked for
        self.inline = inline  # ids of the items that came with the request
        self.opened = False
        self.calls: list[FunctionCall] = []
        self._said: Status | None = None  # how what is said ended; None: it goes on
        self.previous_item_id: str | None = None
        self.sound_bytes = 0
        self.heard_ms: int | None = None  # of its sound, if it was cut
        self._texts: list[tuple[int, str]] = []
        self._event_id = event_id
        self._conversation_id = conversation_id
        self._max_output_tokens = max_output_tokens
        self._metadata = metadata
        self._prompt = RunStarted(run.response_id, 0, 0)
        self._text_tokens = 0
        self._audio_tokens = 0

    def going_on(self, items: tuple[ConversationItem, ...], make_id: MakeId) -> OpenResponse:
        """A response that goes on where this one, of the conversation, was cut; `items`: what it
        answers."""
        run = replace(
            self.run,
            response_id=make_id("resp"),
            item_id=make_id("item"),
            items=items,
            resumes=self.run.item_id,
            heard_ms=self.run.heard_ms + (self.heard_ms or 0),
        )
        return OpenResponse(
            run,
            question=self.question,
            inline=(),
            conversation_id=self._conversation_id,
            max_output_tokens=self._max_output_tokens,
            metadata=self._metadata,
            event_id=self._event_id,
        )

    @property
    def audio_ms(self) -> int:
        """Milliseconds of sound sent so far."""
        return self.sound_bytes * 1000 // bytes_per_second(self.run.format)

    @property
    def text(self) -> str:
        """The text so far: the transcript of a spoken answer, the answer itself of a text one."""
        return "".join(text for _, text in self._texts)

    def heard_text(self, audio_end_ms: int) -> str:
        """The text whose sound began before `audio_end_ms` of this response's.

        While the answer grows, its times are the driver's estimates. A finished answer has its
        text spread over its sound, which is nearer the truth.
        """
        before = self.run.heard_ms
        if self._said == "completed" and self.audio_ms:
            share = (before + audio_end_ms) / (before + self.audio_ms)
            characters = math.ceil(len(self.text) * min(1.0, share))
            starts = accumulate((len(text) for _, text in self._texts), initial=0)
            heard = zip(starts, self._texts, strict=False)
            return "".join(text for start, (_, text) in heard if start < characters)
        return "".join(text for start, text in self._texts if start < before + audio_end_ms)

    def item(self, status: Status) -> Message:
        """The item of what is said as it is now; `status` is that of one which goes on."""
        status = self._said or status
        spoken = self.run.modality == "audio"
        part = OutputSound(transcript=self.text) if spoken else OutputText(text=self.text)
        content = [part] if self._texts or self.sound_bytes or status != "in_progress" else []
        return Message(id=self.run.item_id, role="assistant", status=status, content=[*content])

    def created(self) -> list[server.ServerEvent]:
        """The response exists."""
        return [
            server.ResponseCreated(
                event_id=self._event_id(), response=self._response("in_progress")
            ),
            server.RateLimitsUpdated(event_id=self._event_id()),
        ]

    def started(self, prompt: RunStarted) -> None:
        """Note the prompt's size, for the usage."""
        self._prompt = prompt

    def open(self, previous_item_id: str | None) -> list[server.ServerEvent]:
        """Announce the item and its part; the second call announces nothing."""
        if self.opened:
            return []
        self.opened = True
        self.previous_item_id = previous_item_id
        run, item = self.run, self.item("in_progress")
        spoken = run.modality == "audio"
        part = (
            ContentPart(type="audio", transcript="")
            if spoken
            else ContentPart(type="text", text="")
        )
        events: list[server.ServerEvent] = [
            server.ResponseOutputItemAdded(
                event_id=self._event_id(), response_id=run.response_id, item=item
            )
        ]
        if run.default:
            events.append(
                server.ConversationItemAdded(
                    event_id=self._event_id(), previous_item_id=previous_item_id, item=item
                )
            )
        events.append(
            server.ResponseContentPartAdded(
                event_id=self._event_id(),
                response_id=run.response_id,
                item_id=run.item_id,
                part=part,
            )
        )
        return events

    def add_text(self, given: RunText, *, captions: bool) -> list[server.ServerEvent]:
        """More text, which a call ends; with `captions`, where in the sound it is spoken."""
        if self.calls:
            return []
        self._texts.append((given.start_ms, given.text))
        self._text_tokens += given.tokens
        run = self.run
        if run.modality == "text":
            return [
                server.ResponseOutputTextDelta(
                    event_id=self._event_id(),
                    response_id=run.response_id,
                    item_id=run.item_id,
                    delta=given.text,
                )
            ]
        return [
            server.ResponseOutputAudioTranscriptDelta(
                event_id=self._event_id(),
                response_id=run.response_id,
                item_id=run.item_id,
                delta=given.text,
                audio_start_ms=max(0, given.start_ms - run.heard_ms) if captions else None,
            )
        ]

    def add_sound(self, data: bytes, tokens: int) -> list[server.ServerEvent]:
        """More sound, which a call ends; a text answer has none.

        Tokens that gave no sound are only counted.
        """
        if self.calls:
            return []
        self._audio_tokens += tokens
        self.sound_bytes += len(data)
        if not data:
            return []
        return [
            server.ResponseOutputAudioDelta(
                event_id=self._event_id(),
                response_id=self.run.response_id,
                item_id=self.run.item_id,
                delta=encode_base64(data),
            )
        ]

    def close(
        self,
        status: Literal["completed", "cancelled", "incomplete", "failed"],
        details: StatusDetails | None,
    ) -> list[server.ServerEvent]:
        """Every open part gets its `done`, then the response."""
        events = self._close_item("completed" if status == "completed" else "incomplete")
        events.append(
            server.ResponseDone(event_id=self._event_id(), response=self._response(status, details))
        )
        return events

    def add_call(
        self, call: FunctionCall, tokens: int, previous_item_id: str | None
    ) -> list[server.ServerEvent]:
        """A call, which is whole; what was said before it is over."""
        assert call.id is not None
        assert call.call_id is not None
        events = self._close_item("completed")
        index = int(self.opened) + len(self.calls)
        self.calls.append(call)
        self._text_tokens += tokens
        empty = call.model_copy(update={"status": "in_progress", "arguments": ""})
        response_id, event_id = self.run.response_id, self._event_id
        added: list[server.ServerEvent] = [
            server.ResponseOutputItemAdded(
                event_id=event_id(), response_id=response_id, output_index=index, item=empty
            ),
            server.ConversationItemAdded(
                event_id=event_id(), previous_item_id=previous_item_id, item=empty
            ),
        ]
        arguments: list[server.ServerEvent] = [
            server.ResponseFunctionCallArgumentsDelta(
                event_id=event_id(),
                response_id=response_id,
                output_index=index,
                item_id=call.id,
                call_id=call.call_id,
                delta=call.arguments,
            ),
            server.ResponseFunctionCallArgumentsDone(
                event_id=event_id(),
                response_id=response_id,
                output_index=index,
                item_id=call.id,
                call_id=call.call_id,
                name=call.name,
                arguments=call.arguments,
            ),
        ]
        done: list[server.ServerEvent] = [
            server.ConversationItemDone(
                event_id=event_id(), previous_item_id=previous_item_id, item=call
            ),
            server.ResponseOutputItemDone(
                event_id=event_id(), response_id=response_id, output_index=index, item=call
            ),
        ]
        if not self.run.default:  # its items are in no conversation
            added, done = added[:1], done[1:]
        return [*events, *added, *arguments, *done]

    def _close_item(self, status: Status) -> list[server.ServerEvent]:
        if not self.opened or self._said is not None:
            return []
        self._said = status
        run, item, text = self.run, self.item(status), self.text
        events: list[server.ServerEvent] = []
        if run.modality == "audio":
            part = ContentPart(type="audio", transcript=text)
            events += [
                server.ResponseOutputAudioDone(
                    event_id=self._event_id(), response_id=run.response_id, item_id=run.item_id
                ),
                server.ResponseOutputAudioTranscriptDone(
                    event_id=self._event_id(),
                    response_id=run.response_id,
                    item_id=run.item_id,
                    transcript=text,
                ),
            ]
        else:
            part = ContentPart(type="text", text=text)
            events.append(
                server.ResponseOutputTextDone(
                    event_id=self._event_id(),
                    response_id=run.response_id,
                    item_id=run.item_id,
                    text=text,
                )
            )
        events.append(
            server.ResponseContentPartDone(
                event_id=self._event_id(),
                response_id=run.response_id,
                item_id=run.item_id,
                part=part,
            )
        )
        if run.default:
            events.append(
                server.ConversationItemDone(
                    event_id=self._event_id(), previous_item_id=self.previous_item_id, item=item
                )
            )
        events.append(
            server.ResponseOutputItemDone(
                event_id=self._event_id(), response_id=run.response_id, item=item
            )
        )
        return events

    def _response(self, status: ResponseStatus, details: StatusDetails | None = None) -> Response:
        done = status != "in_progress"
        said = [self.item("incomplete")] if self.opened else []
        return Response(
            id=self.run.response_id,
            status=status,
            status_details=details,
            output=[*said, *self.calls] if done else [],
            conversation_id=self._conversation_id,
            output_modalities=[self.run.modality],
            max_output_tokens=self._max_output_tokens,
            audio=ResponseAudio(
                output=ResponseOutputAudio(format=self.run.format, voice=self.run.voice)
            ),
            usage=server.token_usage(
                text_in=self._prompt.text_tokens,
                audio_in=self._prompt.audio_tokens,
                cached_text=self._prompt.cached_text_tokens,
                cached_audio=self._prompt.cached_audio_tokens,
                text_out=self._text_tokens,
                audio_out=self._audio_tokens,
            )
            if done
            else None,
            metadata=self._metadata,
        )


def cancelled(reason: CancelReason) -> StatusDetails:
    """Details of a cancelled response."""
    return StatusDetails(type="cancelled", reason=reason)


def failed(code: str) -> StatusDetails:
    """Details of a failed response; `code` is one of `FAILURES`."""
    error = StatusError(type="server_error", code=code, message=FAILURES[code])
    return StatusDetails(type="failed", error=error)
