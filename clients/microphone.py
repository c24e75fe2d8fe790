"""`aqaa talk`: this machine's microphone and loudspeaker as a hands-free conversation."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from aqaa.clients.client import WIRE_RATE, Connection, decode
from aqaa.clients.tools import Tools
from aqaa.models.errors import AudioError, MissingDependencyError
from aqaa.server.protocol.client_events import ConversationItemTruncate
from aqaa.server.protocol.server_events import (
    ErrorEvent,
    InputAudioBufferSpeechStarted,
    InterruptionReported,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    SessionCreated,
)

BLOCK = WIRE_RATE // 50
LOW = 0.2  # the answer's level while it is doubtful whether the user interrupts
RAMP_SECONDS = 0.03


class Player:
    """Samples waiting for the loudspeaker, and how much of the present answer it has had. An answer
    that begins while the one before is played, as after a call, waits for its end.

    Filled on the event loop, emptied by the sound card's thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[tuple[str, NDArray[np.float32]]] = deque()  # samples of an item
        self.item: str | None = None  # that is played
        self.played = 0
        self._low = False
        self._gain = 1.0

    def put(self, item: str, pcm: NDArray[np.float32]) -> None:
        """More of `item`."""
        with self._lock:
            self._queue.append((item, pcm))

    def take(self, count: int) -> NDArray[np.float32]:
        """The next `count` samples, silence where there are none."""
        out = np.zeros(count, np.float32)
        filled = 0
        with self._lock:
            while filled < count and self._queue:
                item, head = self._queue.popleft()
                fits = head[: count - filled]
                out[filled : filled + fits.size] = fits
                filled += fits.size
                if fits.size < head.size:
                    self._queue.appendleft((item, head[fits.size :]))
                if item != self.item:
                    self.item, self.played = item, 0
                self.played += fits.size
            if self._low or self._gain < 1.0:
                out *= self._level(count)
        return out

    def duck(self, low: bool) -> None:
        """Be quiet, or as loud as ever again."""
        self._low = low

    def _level(self, count: int) -> NDArray[np.float32]:
        """The gains of the next `count` samples: a ramp towards what is wanted, without a click."""
        target = LOW if self._low else 1.0
        span = (1.0 - LOW) / (RAMP_SECONDS * WIRE_RATE) * np.arange(1, count + 1)
        if target < self._gain:
            gains = np.maximum(target, self._gain - span)
        else:
            gains = np.minimum(target, self._gain + span)
        self._gain = float(gains[-1])
        return np.asarray(gains, dtype=np.float32)

    def cut(self) -> tuple[str, int] | None:
        """Be silent; the item that was cut and the milliseconds of it that were heard."""
        with self._lock:
            if not self._queue:
                return None
            item, _ = self._queue[0]
            self._queue.clear()
            self._low = False
            played = self.played if item == self.item else 0
            return item, round(1000 * played / WIRE_RATE)


class DeviceRate:
    """Converts between the wire's rate and that of a sound card which has no other."""

    def __init__(self, rate: int, player: Player) -> None:
        self._player = player
        self._to_wire = soxr.ResampleStream(rate, WIRE_RATE, 1, dtype="float32")
        self._to_device = soxr.ResampleStream(WIRE_RATE, rate, 1, dtype="float32")
        self._waiting = np.zeros(0, np.float32)  # at the device's rate

    def heard(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the microphone gave, at the wire's rate."""
        return np.asarray(self._to_wire.resample_chunk(block), dtype=np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        """The next `count` samples for the loudspeaker."""
        while self._waiting.size < count:
            more = self._to_device.resample_chunk(self._player.take(BLOCK))
            self._waiting = np.concatenate((self._waiting, more))
        out, self._waiting = self._waiting[:count], self._waiting[count:]
        return out


def open_devices(
    player: Player, on_block: Callable[[NDArray[np.float32]], None]
) -> Any:  # sounddevice ships no types
    """A running duplex stream on the default devices, at the wire's rate or at one of theirs.

    Raises:
        MissingDependencyError: sounddevice is not installed.
        AudioError: there is no microphone or no loudspeaker.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: the PortAudio library is missing
        raise MissingDependencyError(
            f"`aqaa talk` needs sounddevice and PortAudio ({error}): pip install 'aqaa[talk]'"
        ) from error

    def start(rate: int) -> Any:
        converter = DeviceRate(rate, player)

        def callback(
            heard: NDArray[np.float32], out: NDArray[np.float32], count: int, *_: object
        ) -> None:
            if rate == WIRE_RATE:
                on_block(heard[:, 0].copy())
                out[:, 0] = player.take(count)
            else:
                on_block(converter.heard(heard[:, 0]))
                out[:, 0] = converter.take(count)

        stream = sounddevice.Stream(
            rate, rate // 50, channels=1, dtype="float32", callback=callback
        )
        stream.start()
        return stream

    refusals = []
    for rate in _rates(sounddevice):
        try:
            return start(rate)
        except sounddevice.PortAudioError as error:
            refusals.append(f"{rate} Hz: {error}")
    raise AudioError(
        f"no usable microphone and loudspeaker here ({'; '.join(refusals)}); try the page or "
        "`aqaa ask`"
    )


def _rates(sounddevice: Any) -> list[int]:
    """The wire's rate, then those that the default devices name, then the usual ones."""
    rates = [WIRE_RATE]
    for kind in ("input", "output"):
        with suppress(sounddevice.PortAudioError, ValueError):
            rates.append(round(sounddevice.query_devices(kind=kind)["default_samplerate"]))
    return list(dict.fromkeys([*rates, 48_000, 44_100]))


async def converse(
    server: Connection, on_text: Callable[[str], None], tools: Tools | None = None
) -> None:
    """Talk until cancelled. `on_text` gets the answer's words; a newline ends each answer.

    `tools`: what the session declares.
    """
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[NDArray[np.float32]] = asyncio.Queue(maxsize=100)
    player = Player()
    answering = False

    def keep(block: NDArray[np.float32]) -> None:
        if not blocks.full():  # a network that stalls for two seconds loses sound, not memory
            blocks.put_nowait(block)

    def on_block(block: NDArray[np.float32]) -> None:
        loop.call_soon_threadsafe(keep, block)

    async def send() -> None:
        while True:
            await server.append(await blocks.get())

    with open_devices(player, on_block):
        sending = asyncio.create_task(send())
        try:
            async for event in server:
                for reply in tools.replies(event) if tools is not None else ():
                    await server.send(reply)
                match event:
                    case SessionCreated() if answering:
                        player.cut()  # it was cut off, and comes again from its beginning
                    case ResponseCreated() | ResponseDone():
                        answering = isinstance(event, ResponseCreated)
                    case ResponseOutputAudioDelta():
                        player.put(event.item_id, decode(event.delta))
                    case InputAudioBufferSpeechStarted():
                        if (cut := player.cut()) is not None:
                            await server.send(
                                ConversationItemTruncate(
                                    type="conversation.item.truncate",
                                    item_id=cut[0],
                                    audio_end_ms=cut[1],
                                )
                            )
                    case InterruptionReported():
                        player.duck(event.state == "suspected")
                    case ResponseOutputAudioTranscriptDelta():
                        on_text(event.delta)
                    case ResponseOutputAudioTranscriptDone():
                        on_text("\n")
                    case ErrorEvent():
                        on_text(f"[{event.error.message}]\n")
        finally:
            sending.cancel()
