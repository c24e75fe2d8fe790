"""`aqaa talk`: this machine's microphone and loudspeaker as a hands-free conversation."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqaa.clients.client import WIRE_RATE, Connection, decode
from aqaa.models.errors import AudioError, MissingDependencyError
from aqaa.server.protocol.client_events import ConversationItemTruncate
from aqaa.server.protocol.server_events import (
    ErrorEvent,
    InputAudioBufferSpeechStarted,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
)

BLOCK = WIRE_RATE // 50


class Player:
    """Samples waiting for the loudspeaker, and how much of the present answer it has had.

    Filled on the event loop, emptied by the sound card's thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[NDArray[np.float32]] = deque()
        self.item: str | None = None
        self.played = 0

    def put(self, item: str, pcm: NDArray[np.float32]) -> None:
        """More of `item`; a new item starts at zero."""
        with self._lock:
            if item != self.item:
                self.item, self.played = item, 0
            self._queue.append(pcm)

    def take(self, count: int) -> NDArray[np.float32]:
        """The next `count` samples, silence where there are none."""
        out = np.zeros(count, np.float32)
        filled = 0
        with self._lock:
            while filled < count and self._queue:
                head = self._queue.popleft()
                fits = head[: count - filled]
                out[filled : filled + fits.size] = fits
                filled += fits.size
                if fits.size < head.size:
                    self._queue.appendleft(head[fits.size :])
            self.played += filled
        return out

    def cut(self) -> tuple[str, int] | None:
        """Be silent; the item that was cut and the milliseconds of it that were heard."""
        with self._lock:
            if not self._queue or self.item is None:
                return None
            self._queue.clear()
            return self.item, round(1000 * self.played / WIRE_RATE)


def open_devices(
    player: Player, on_block: Callable[[NDArray[np.float32]], None]
) -> Any:  # sounddevice ships no types
    """A running duplex stream on the default devices.

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

    def callback(
        heard: NDArray[np.float32], out: NDArray[np.float32], count: int, *_: object
    ) -> None:
        on_block(heard[:, 0].copy())
        out[:, 0] = player.take(count)

    try:
        stream = sounddevice.Stream(
            WIRE_RATE, BLOCK, channels=1, dtype="float32", callback=callback
        )
        stream.start()
    except sounddevice.PortAudioError as error:
        raise AudioError(
            f"no usable microphone and loudspeaker here ({error}); try the page or `aqaa ask`"
        ) from error
    return stream


async def converse(server: Connection, on_text: Callable[[str], None]) -> None:
    """Talk until cancelled. `on_text` gets the answer's words; a newline ends each answer."""
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[NDArray[np.float32]] = asyncio.Queue(maxsize=100)
    player = Player()

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
                match event:
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
                    case ResponseOutputAudioTranscriptDelta():
                        on_text(event.delta)
                    case ResponseOutputAudioTranscriptDone():
                        on_text("\n")
                    case ErrorEvent():
                        on_text(f"[{event.error.message}]\n")
        finally:
            sending.cancel()
