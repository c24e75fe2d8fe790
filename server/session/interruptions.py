"""What becomes of an answer while somebody speaks into it, until it is known whether to stop.

The speech input tells that it suspects an interruption, and later what it was. In between the
answer is made quiet (`ducking`); the client is told if it asked for that. The speech input in turn
is told what the client plays, so that it knows when to suspect and what is an echo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from aqaa.server.answering.playback import Playback
from aqaa.server.hearing.input_queue import AssistantPlays, AssistantStops, InputJob
from aqaa.server.hearing.interruption import Dismissal, Verdict
from aqaa.server.hearing.speech_events import SpeechDismissed, SpeechSuspected
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.parts import Services, wire_audio
from aqaa.server.protocol.effects import StartRun
from aqaa.server.protocol.ids import random_id
from aqaa.server.protocol.server_events import InterruptionReported, ServerEvent
from aqaa.server.protocol.session_types import Session
from aqaa.server.session.ducking import Ducking


class Interruptions:
    """One session's."""

    def __init__(
        self,
        services: Services,
        hear: Callable[[InputJob], None],
        tell: Callable[[ServerEvent], None],
    ) -> None:
        """`hear` takes jobs for the speech input; `tell` events for the client."""
        self._metrics = services.metrics
        self._clock = services.clock
        self._hear = hear
        self._tell = tell
        self._ducking = Ducking()
        self._suspected = False
        self._doubts = self._tells = False

    def configure(self, session: Session, rules: TurnRules | None) -> None:
        """The session's settings have changed."""
        self._doubts = rules is not None and rules.doubts
        self._tells = "interruptions" in session.aqaa.extensions

    def sound(self, run: StartRun, playback: Playback, data: bytes) -> bytes:
        """The next sound of an answer, of which `playback` tells when it is played: as to be sent.

        An answer beside the conversation is nobody's to interrupt.
        """
        if not (self._doubts and run.default and data):
            return data
        format, now = wire_audio(run.format), self._clock()
        ahead = playback.ahead(now)
        self._hear(AssistantPlays(data, format, ahead))
        return self._ducking.applied(data, format, now + ahead)

    def react(self, event: SpeechSuspected | SpeechDismissed) -> None:
        """Somebody seems to speak into the answer; or it was nothing, and the answer goes on."""
        match event:
            case SpeechSuspected():
                self._suspected = True
                self._ducking.begin(self._clock())
                self._report("suspected", None)
            case SpeechDismissed():
                self._settle(event.verdict)
                self._report("dismissed", event.verdict)

    def speech_began(self) -> None:
        """A turn of the user's begins: if it was suspected to interrupt, it does."""
        if self._suspected:
            self._settle("interruption")

    def forget(self) -> None:
        """What was heard so far is the client's, who has committed or cleared its buffer."""
        self._suspected = False
        self._ducking.end()

    def stopped(self) -> None:
        """The client plays nothing of an answer any more."""
        self._ducking.forget()
        self._hear(AssistantStops())

    def _report(self, state: Literal["suspected", "dismissed"], reason: Dismissal | None) -> None:
        if self._tells:
            event = InterruptionReported(event_id=random_id("event"), state=state, reason=reason)
            self._tell(event)

    def _settle(self, verdict: Verdict) -> None:
        self._suspected = False
        self._ducking.end()
        self._metrics.doubted_speech.labels(verdict).inc()
