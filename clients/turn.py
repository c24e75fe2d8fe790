"""One spoken turn as a microphone and a loudspeaker would have it, with its latency measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from aqaa.clients.client import WIRE_RATE, Connection, decode
from aqaa.clients.sound import speech_end
from aqaa.clients.tools import Tools
from aqaa.models.errors import ConnectionLostError, NoSpeechError
from aqaa.server.protocol.server_events import (
    ConversationItemDeleted,
    ErrorEvent,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    LatencyReported,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputTextDelta,
    ServerEvent,
    SessionCreated,
)

BLOCK_SECONDS = 0.02
NO_SPEECH_SECONDS = 5.0  # after a recording, until it is said that nobody spoke in it
GOES_ON_SECONDS = 0.5  # after the speech, for the server to find that the last of it came late
BENIGN = ("response_cancel_not_active", "conversation_already_has_active_response")
OnSound = Callable[[NDArray[np.float32]], None]


@dataclass
class GapCounter:
    """Plays on a clock of its own, to know where the sound would have had gaps.

    Playback begins with the first samples and never waits: what comes too late is a gap.
    """

    until: float | None = None
    gaps: int = 0
    gap_seconds: float = 0.0

    def play(self, samples: int, now: float) -> None:
        """`samples` at WIRE_RATE arrived at `now` (seconds)."""
        if self.until is None:
            self.until = now
        elif now > self.until:
            self.gaps += 1
            self.gap_seconds += now - self.until
            self.until = now
        self.until += samples / WIRE_RATE


@dataclass
class SpokenAnswer:
    """What came back. `audio` is mono float32 at WIRE_RATE.

    `heard_after` is seconds from the last sample of speech to the first sample of the answer;
    `stages` is the server's own account of it, in milliseconds. `false_ends`: how often the server
    took the question for finished before it was; `taken_back`: how often it then read it as one.
    """

    transcript: str = ""
    status: str = "in_progress"
    audio: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    heard_after: float | None = None
    seconds: float = 0.0
    gaps: int = 0
    gap_seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    false_ends: int = 0
    taken_back: int = 0

    @property
    def ok(self) -> bool:
        """Answered whole, with sound, without a gap."""
        return self.status == "completed" and self.audio.size > 0 and self.gaps == 0


class Microphone:
    """Sends a recording in real time, then silence, as an open microphone does."""

    def __init__(self, server: Connection, wave: NDArray[np.float32]) -> None:
        self._server = server
        self._wave = wave
        self._last_of_speech = speech_end(wave, WIRE_RATE)
        self._begin = time.monotonic()
        self.speech_ended_at: float | None = None

    def seconds_left(self) -> float:
        """Until the last sample of speech has been recorded."""
        return max(0.0, self._begin + self._last_of_speech / WIRE_RATE - time.monotonic())

    async def run(self) -> None:
        """Until cancelled."""
        block = round(WIRE_RATE * BLOCK_SECONDS)
        silence = np.zeros(block, np.float32)
        start = self._begin = time.monotonic()
        at = 0
        while True:
            piece = self._wave[at : at + block]
            at += block
            # A microphone hands over a block when its last sample has been recorded.
            await asyncio.sleep(start + at / WIRE_RATE - time.monotonic())
            if self.speech_ended_at is None and at >= self._last_of_speech:
                self.speech_ended_at = start + self._last_of_speech / WIRE_RATE
            await self._server.append(piece if piece.size == block else silence)


async def speak(
    server: Connection,
    wave: NDArray[np.float32],
    *,
    on_sound: OnSound | None = None,
    tools: Tools | None = None,
) -> SpokenAnswer:
    """Speak `wave` (mono float32 at WIRE_RATE) in real time and hear the answer to its end.

    An answer to a part of it, whose turn ended in a pause, gives way to the next; one that calls
    functions of `tools`, which the session declares, goes on with what they gave back. The session
    must have turn detection on (its default).

    Raises:
        ConnectionLostError: the server closed, or answered with an error.
        NoSpeechError: some seconds after the recording the server had heard nobody speak.
    """
    microphone = Microphone(server, wave)
    sending = asyncio.create_task(microphone.run())
    hearing = _Hearing(server, microphone, on_sound, tools)
    try:
        return await hearing.run(patience=wave.size / WIRE_RATE + NO_SPEECH_SECONDS)
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, ConnectionLostError):
            await sending


class _Hearing:
    """Hears the answer to what a microphone says."""

    def __init__(
        self,
        server: Connection,
        microphone: Microphone,
        on_sound: OnSound | None,
        tools: Tools | None,
    ) -> None:
        self._server = server
        self._microphone = microphone
        self._on_sound = on_sound
        self._tools = tools
        self._items: set[str] = set()  # of the question, or of a part of it
        self._false_ends = self._taken_back = 0

    async def run(self, patience: float) -> SpokenAnswer:
        """The whole answer; see `speak` for what is raised.

        `patience`: seconds for the server to hear speech, or to begin an answer.
        """
        turn = await self._answer(patience)
        while await self._goes_on():
            turn = await self._answer(patience)
        turn.false_ends, turn.taken_back = self._false_ends, self._taken_back
        return turn

    async def _goes_on(self) -> bool:
        """Whether the answer was whole before the question was, and another is due."""
        if self._microphone.speech_ended_at is not None:
            return False
        patience = self._microphone.seconds_left() + GOES_ON_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(patience), aclosing(_events(self._server)) as events:
                async for event in events:
                    if isinstance(event, InputAudioBufferSpeechStarted):
                        return True
        return False

    async def _answer(self, patience: float) -> SpokenAnswer:
        try:
            async with asyncio.timeout(patience) as waiting:
                return await self._collect(patience, waiting)
        except TimeoutError:
            raise NoSpeechError(
                "the server heard nobody speak: is the recording silent, or very quiet?"
            ) from None

    async def _collect(self, patience: float, waiting: asyncio.Timeout) -> SpokenAnswer:
        turn = SpokenAnswer()
        gap_counter = GapCounter()
        pieces: list[NDArray[np.float32]] = []
        async with aclosing(_events(self._server)) as events:
            async for event in events:
                replies = [] if self._tools is None else self._tools.replies(event)
                for reply in replies:
                    await self._server.send(reply)
                match event:
                    case SessionCreated():
                        # It goes on elsewhere, where the answer begins anew. The silence before
                        # that is a gap like any other.
                        turn, pieces = SpokenAnswer(heard_after=turn.heard_after), []
                        waiting.reschedule(asyncio.get_running_loop().time() + patience)
                    case InputAudioBufferSpeechStarted() | ResponseCreated():
                        waiting.reschedule(None)
                    case ResponseOutputAudioTranscriptDelta() | ResponseOutputTextDelta():
                        turn.transcript += event.delta
                    case ResponseOutputAudioDelta() if event.delta:
                        now = time.monotonic()
                        ended = self._microphone.speech_ended_at
                        if turn.heard_after is None and ended is not None:
                            turn.heard_after = now - ended
                        piece = decode(event.delta)
                        pieces.append(piece)
                        gap_counter.play(piece.size, now)
                        if self._on_sound is not None:
                            self._on_sound(piece)
                    case LatencyReported():
                        turn.stages = dict(event.stages)
                    case ErrorEvent() if event.error.code not in BENIGN:
                        raise ConnectionLostError(f"the server answered: {event.error.message}")
                    case ResponseDone() if not replies:
                        turn.status = event.response.status
                        details = event.response.status_details
                        if details is None or details.reason != "turn_detected":
                            break
                        # The question went on after a pause: the answer to its first half is void.
                        turn, gap_counter, pieces = SpokenAnswer(), GapCounter(), []
                    case _:
                        self._count(event)
        if pieces:
            turn.audio = np.concatenate(pieces)
        turn.seconds = turn.audio.size / WIRE_RATE
        turn.gaps, turn.gap_seconds = gap_counter.gaps, gap_counter.gap_seconds
        return turn

    def _count(self, event: ServerEvent) -> None:
        match event:
            case InputAudioBufferSpeechStopped():
                self._false_ends += self._microphone.speech_ended_at is None
            case InputAudioBufferCommitted():
                self._items.add(event.item_id)
            case ConversationItemDeleted():
                self._taken_back += event.item_id in self._items


async def _events(server: Connection) -> AsyncGenerator[ServerEvent]:
    async for event in server:
        yield event
    raise ConnectionLostError("the server ended the conversation before it had answered")
