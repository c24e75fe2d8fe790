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
from aqaa.models.errors import ConnectionLostError, NoSpeechError
from aqaa.server.protocol.server_events import (
    ErrorEvent,
    InputAudioBufferSpeechStarted,
    LatencyReported,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputTextDelta,
    ServerEvent,
)

BLOCK_SECONDS = 0.02
NO_SPEECH_SECONDS = 5.0  # after a recording, until it is said that nobody spoke in it
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
    `stages` is the server's own account of it, in milliseconds.
    """

    transcript: str = ""
    status: str = "in_progress"
    audio: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    heard_after: float | None = None
    seconds: float = 0.0
    gaps: int = 0
    gap_seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)

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
        self.speech_ended_at: float | None = None

    async def run(self) -> None:
        """Until cancelled."""
        block = round(WIRE_RATE * BLOCK_SECONDS)
        silence = np.zeros(block, np.float32)
        start = time.monotonic()
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
    server: Connection, wave: NDArray[np.float32], *, on_sound: OnSound | None = None
) -> SpokenAnswer:
    """Speak `wave` (mono float32 at WIRE_RATE) in real time and hear the answer to its end.

    The session must have server VAD on (its default).

    Raises:
        ConnectionLostError: the server closed, or answered with an error.
        NoSpeechError: some seconds after the recording the server had heard nobody speak.
    """
    microphone = Microphone(server, wave)
    sending = asyncio.create_task(microphone.run())
    try:
        patience = wave.size / WIRE_RATE + NO_SPEECH_SECONDS
        return await hear(
            server, lambda: microphone.speech_ended_at, patience=patience, on_sound=on_sound
        )
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, ConnectionLostError):
            await sending


async def hear(
    server: Connection,
    speech_ended_at: Callable[[], float | None],
    *,
    patience: float,
    on_sound: OnSound | None = None,
) -> SpokenAnswer:
    """Collect one whole answer; see `speak` for what is raised.

    `patience`: seconds for the server to hear speech, or to begin an answer.
    """
    try:
        async with asyncio.timeout(patience) as waiting:
            return await _collect(
                server, speech_ended_at, lambda: waiting.reschedule(None), on_sound
            )
    except TimeoutError:
        raise NoSpeechError(
            "the server heard nobody speak: is the recording silent, or very quiet?"
        ) from None


async def _collect(
    server: Connection,
    speech_ended_at: Callable[[], float | None],
    on_speech: Callable[[], None],
    on_sound: OnSound | None,
) -> SpokenAnswer:
    turn = SpokenAnswer()
    gap_counter = GapCounter()
    pieces: list[NDArray[np.float32]] = []
    async with aclosing(_events(server)) as events:
        async for event in events:
            match event:
                case InputAudioBufferSpeechStarted() | ResponseCreated():
                    on_speech()
                case ResponseOutputAudioTranscriptDelta() | ResponseOutputTextDelta():
                    turn.transcript += event.delta
                case ResponseOutputAudioDelta() if event.delta:
                    now = time.monotonic()
                    ended = speech_ended_at()
                    if turn.heard_after is None and ended is not None:
                        turn.heard_after = now - ended
                    piece = decode(event.delta)
                    pieces.append(piece)
                    gap_counter.play(piece.size, now)
                    if on_sound is not None:
                        on_sound(piece)
                case LatencyReported():
                    turn.stages = dict(event.stages)
                case ErrorEvent() if event.error.code not in BENIGN:
                    raise ConnectionLostError(f"the server answered: {event.error.message}")
                case ResponseDone():
                    turn.status = event.response.status
                    details = event.response.status_details
                    if details is None or details.reason != "turn_detected":
                        break
                    # The question went on after a pause: the answer to its first half is void.
                    turn, gap_counter, pieces = SpokenAnswer(), GapCounter(), []
    if pieces:
        turn.audio = np.concatenate(pieces)
    turn.seconds = turn.audio.size / WIRE_RATE
    turn.gaps, turn.gap_seconds = gap_counter.gaps, gap_counter.gap_seconds
    return turn


async def _events(server: Connection) -> AsyncGenerator[ServerEvent]:
    async for event in server:
        yield event
    raise ConnectionLostError("the server ended the conversation before it had answered")
