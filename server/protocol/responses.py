"""The responses that are open: how each is asked for, goes on and ends.

At most one writes the conversation; others run beside it. A turn that ends while an answer runs
which it may not interrupt is answered when that is over.
"""

from __future__ import annotations

from typing import Literal

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol.answers import Answers
from aqaa.server.protocol.configure import Voices
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.items import Items, MakeId, Output
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.response import (
    CancelReason,
    OpenResponse,
    cancelled,
    failed,
    planned_run,
)
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.types import ResponseOptions, Status, StatusDetails


class Responses:
    """One session's. What was asked for is told by the session's settings as they are then."""

    def __init__(
        self, items: Items, answers: Answers, voices: Voices, limits: Limits, make_id: MakeId
    ) -> None:
        self._items = items
        self._answers = answers
        self._voices = voices
        self._limits = limits
        self._make_id = make_id
        self._conversation_id = make_id("conv")
        self._open: dict[str, OpenResponse] = {}
        self._answer_is_due = False  # a turn ended while an answer that it may not interrupt ran
        self.default: OpenResponse | None = None  # the one that writes the conversation
        self.has_answered = False
        self.voice_is_fixed = False

    def any_open(self) -> bool:
        """Whether any response is open."""
        return bool(self._open)

    # --- how they are asked for -------------------------------------------------------------------

    def create(self, options: ResponseOptions, session: Session) -> list[Output]:
        """A response with these options.

        Raises:
            ProtocolError: one more cannot be open now, or the options cannot be obeyed.
        """
        default = options.conversation == "auto"
        if default and self.default is not None:
            raise ProtocolError(
                "conversation_already_has_active_response",
                "the conversation has an active response"
                f" ({self.default.run.response_id}); wait for its response.done or cancel it",
            )
        if not default and len(self._open) > self._limits.parallel_responses:
            raise ProtocolError(
                "rate_limit_exceeded",
                f"{self._limits.parallel_responses} out-of-band responses run at once; wait for one"
                " to be done",
            )
        self._limits.check_response(options, session)
        run, sounds = self.plan(options, session)
        response = OpenResponse(
            run,
            question=self._items.conversation.last_id(),
            inline=self._items.unknown(item.id for item in run.items),
            conversation_id=self._conversation_id if default else None,
            max_output_tokens="inf" if run.max_tokens is None else run.max_tokens,
            metadata=options.metadata,
            event_id=self._event_id,
        )
        self._open[run.response_id] = response
        if default:
            self.default = response
            self._answer_is_due = False
        return [*sounds, *response.created(), run]

    def plan(self, options: ResponseOptions, session: Session) -> tuple[fx.StartRun, list[Output]]:
        """What to answer and how; and where sound that came with the request goes.

        Raises:
            ProtocolError: the options cannot be obeyed.
        """
        default = options.conversation == "auto"
        output = session.audio.output
        voice = output.voice
        if options.audio.output.voice is not None:
            voice = self._voices.find(options.audio.output.voice, "response.audio.output.voice")
        if default and self.voice_is_fixed and voice != output.voice:
            raise ProtocolError(
                "cannot_update_voice",
                "the voice cannot change once the session has spoken",
                "response.audio.output.voice",
            )
        if options.input is None:
            items, sounds = tuple(self._items.conversation), list[Output]()
        else:
            format = session.audio.input.format
            items, sounds = self._items.context(options.input, format)
        return planned_run(session, options, items, voice, self._make_id), sounds

    def answer_turn(self, session: Session) -> list[Output]:
        """Answer the turn that just ended: now, or when the present answer is over."""
        if self.default is not None:
            self._answer_is_due = True
            return []
        return self.create(ResponseOptions(), session)

    def resume(self, item_id: str | None) -> list[Output]:
        """The answer of this item, which was cut, goes on in another; nothing, if it cannot."""
        response = None if self.default is not None else self._answers.going_on(item_id)
        if response is None or item_id is None:
            return []
        self._open[response.run.response_id] = self.default = response
        return [*response.created(), response.run, *self._items.delete(item_id)]

    def turn_goes_on(self) -> None:
        """The turn that just ended is none yet: it asks for no answer."""
        self._answer_is_due = False

    # --- how they go on ---------------------------------------------------------------------------

    def react(
        self,
        given: fx.RunStarted | fx.RunText | fx.RunSound | fx.RunCall | fx.RunEnded,
        session: Session,
    ) -> list[Output]:
        """What is said about more of an answer, or its end."""
        response = self._open.get(given.response_id)
        if response is None:
            return []
        match given:
            case fx.RunStarted():
                response.started(given)
                return []
            case fx.RunText():
                captions = "captions" in session.aqaa.extensions
                return [*self._answered(response), *response.add_text(given, captions=captions)]
            case fx.RunSound():
                if response.run.modality == "text":
                    return []
                if response.run.default:
                    self.voice_is_fixed = True
                return [*self._answered(response), *response.add_sound(given.data, given.tokens)]
            case fx.RunCall():
                self.has_answered |= response.run.default
                return self._answers.call(response, given)
            case fx.RunEnded():
                return self._ended(response, given, session)

    def _answered(self, response: OpenResponse) -> list[Output]:
        self.has_answered |= response.run.default
        return self._answers.open(response)

    # --- how they end -----------------------------------------------------------------------------

    def _ended(self, response: OpenResponse, given: fx.RunEnded, session: Session) -> list[Output]:
        match given.status:
            case "completed":
                return self.close(response, "completed", None, session)
            case "max_output_tokens":
                details = StatusDetails(type="incomplete", reason="max_output_tokens")
                return self.close(response, "incomplete", details, session)
            case "failed":
                details = failed(given.code or "server_error")
                return self.close(response, "failed", details, session)

    def cancel(self, event: client.ResponseCancel, session: Session) -> list[Output]:
        """The client cancels one.

        Raises:
            ProtocolError: there is nothing to cancel.
        """
        wanted = event.response_id
        response = self.default if wanted is None else self._open.get(wanted)
        if response is not None:
            return self.stop(response, "client_cancelled", session)
        if cut := self._answers.cancel_waiting(wanted):
            return cut
        raise ProtocolError(
            "response_cancel_not_active", "Cancellation failed: no active response found"
        )

    def stop(self, response: OpenResponse, reason: CancelReason, session: Session) -> list[Output]:
        """Silence a response: no more of it is sent, and it ends where it was being heard."""
        run = response.run
        out: list[Output] = [fx.StopRun(run.response_id)]
        out += self.close(response, "cancelled", cancelled(reason), session)
        if run.default and response.opened and run.modality == "audio":
            out += self._answers.cut_at_playhead(run.item_id)
        return out

    def close(
        self,
        response: OpenResponse,
        status: Literal["completed", "cancelled", "incomplete", "failed"],
        details: StatusDetails | None,
        session: Session,
    ) -> list[Output]:
        """Say that a response is over; what waited for its end begins."""
        run = response.run
        del self._open[run.response_id]
        out: list[Output] = [*response.close(status, details)]
        if run.default:
            self.default = None
            if response.opened:
                done: Status = "completed" if status == "completed" else "incomplete"
                self._items.conversation.replace(run.item_id, response.item(done))
        own = (*response.inline, run.item_id)
        out += [fx.ForgetItem(one) for one in own if one not in self._items.conversation]
        if run.default and self._answer_is_due:
            out += self.create(ResponseOptions(), session)
        return out

    def _event_id(self) -> str:
        return self._make_id("event")
