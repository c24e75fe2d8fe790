"""Ends the turn of a client that stops sending: muted, with silence suppressed, at a file's end.

Turn detection counts samples, so without any it waits for ever. Here silence is heard in the place
of what does not come, from a second after the silence that the session asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.protocol.machine import SessionMachine
from aqaa.server.protocol.types import WireFormat, bytes_per_second

PATIENCE_SECONDS = 1.0  # beyond the silence that ends a turn: more than networks stall
STEP_SECONDS = 0.25
SILENCE = {"audio/pcm": b"\x00", "audio/pcmu": b"\xff", "audio/pcma": b"\xd5"}  # one byte of it


class StallWatch:
    """Watches by the wall clock when one session's client last sent sound."""

    def __init__(
        self,
        machine: SessionMachine,
        append: Callable[[bytes], None],
        hearing: Callable[[], bool],
    ) -> None:
        """Watch.

        Args:
            machine: the session's.
            append: takes sound in the session's input format.
            hearing: whether sound that has come is still to be heard: then the client is not read,
                and it is not the client that stalls.
        """
        self._machine = machine
        self._append = append
        self._hearing = hearing
        self._last_sound = time.monotonic()

    def sound_came(self) -> None:
        """The client has sent sound."""
        self._last_sound = time.monotonic()

    async def run(self) -> None:
        """Watch, until cancelled."""
        missing = -PATIENCE_SECONDS
        while True:
            await asyncio.sleep(max(STEP_SECONDS, -missing))  # before, none can be missed
            missing = time.monotonic() - self._last_sound - PATIENCE_SECONDS
            audio = self._machine.session.audio.input
            if missing < 0 or audio.turn_detection is None or not self._machine.speaking:
                continue
            if self._hearing():
                continue
            if missing > TurnRules.of(audio.turn_detection).silence_ms / 1000:
                self._append(_silence(audio.format))


def _silence(format: WireFormat) -> bytes:
    samples = round(STEP_SECONDS * bytes_per_second(format) / 2) * 2
    return SILENCE[format.type] * samples
