"""Recordings of a user replayed in real time, and what the assistant said meanwhile, in step.

Benchmarks of full-duplex speech (Full-Duplex-Bench and its kin) are folders of clips: `input.wav`
is all that the user says and all that there is to hear beside him, and they ask for an `output.wav`
on the same clock. Sample n of the one is heard when sample n of the other is said.

    python -m aqaa.clients.replay FOLDER --url http://127.0.0.1:8000
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from aqaa.clients.client import WIRE_RATE, Connection, connect, decode
from aqaa.clients.detection import TURN_DETECTION, TurnDetectionKind
from aqaa.clients.sound import write_sound
from aqaa.clients.turn import BENIGN, BLOCK_SECONDS
from aqaa.models.errors import ConnectionLostError
from aqaa.server.audio.files import read_audio
from aqaa.server.protocol.client_events import ConversationItemTruncate
from aqaa.server.protocol.server_events import (
    ErrorEvent,
    InputAudioBufferSpeechStarted,
    ResponseOutputAudioDelta,
)

INPUT, OUTPUT = "input.wav", "output.wav"
Samples = NDArray[np.float32]
Now = Callable[[], int]  # samples since the recording began


@dataclass
class Playout:
    """A loudspeaker that remembers: what it played, on a clock of samples at WIRE_RATE.

    Sound is played when it comes, or behind what waits already; `cut` drops what waits.
    """

    length: int
    played: Samples = field(init=False)
    _until: int = 0  # where what waits ends
    _item: str | None = None
    _item_samples: int = 0  # of the item that came last, played or waiting

    def __post_init__(self) -> None:
        self.played = np.zeros(self.length, np.float32)

    def play(self, item: str, pcm: Samples, now: int) -> None:
        """`pcm` of `item` came at sample `now`; what would be played after the end is left out."""
        if item != self._item:
            self._item, self._item_samples = item, 0
        begin = max(now, self._until)
        self._until = begin + pcm.size
        self._item_samples += pcm.size
        fits = pcm[: max(0, self.length - begin)]
        self.played[begin : begin + fits.size] = fits

    def cut(self, now: int) -> tuple[str, int] | None:
        """Be silent from sample `now` on; the item and the milliseconds of it that were heard."""
        waiting = self._until - now
        if waiting <= 0 or self._item is None:
            return None
        self.played[now:] = 0
        self._until = now
        heard = max(0, self._item_samples - waiting)
        self._item_samples = heard
        return self._item, round(1000 * heard / WIRE_RATE)


async def replay(server: Connection, wave: Samples) -> Samples:
    """Say `wave` (mono float32 at WIRE_RATE) in real time; returns what was heard meanwhile.

    Both are of one length and one clock. The session must have turn detection on.

    Raises:
        ConnectionLostError, CapacityError: the server closed, or answered with an error.
    """
    playout = Playout(wave.size)
    start = time.monotonic()

    def now() -> int:
        return round((time.monotonic() - start) * WIRE_RATE)

    listening = asyncio.create_task(_listen(server, playout, now))
    block = round(WIRE_RATE * BLOCK_SECONDS)
    try:
        for at in range(0, wave.size, block):
            piece = wave[at : at + block]
            # A microphone hands over a block when its last sample has been recorded.
            await asyncio.sleep(start + (at + piece.size) / WIRE_RATE - time.monotonic())
            if listening.done():
                break
            await server.append(piece)
    finally:
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening  # raises what ended it
    return playout.played


async def _listen(server: Connection, playout: Playout, now: Now) -> None:
    async for event in server:
        match event:
            case ResponseOutputAudioDelta():
                playout.play(event.item_id, decode(event.delta), now())
            case InputAudioBufferSpeechStarted():
                if (cut := playout.cut(now())) is not None:
                    await server.send(
                        ConversationItemTruncate(
                            type="conversation.item.truncate", item_id=cut[0], audio_end_ms=cut[1]
                        )
                    )
            case ErrorEvent() if event.error.code not in BENIGN:
                raise ConnectionLostError(f"the server answered: {event.error.message}")
    raise ConnectionLostError("the server ended the conversation before the recording was over")


def clips_in(folder: Path) -> list[Path]:
    """The recordings at and below `folder` that nothing was heard to yet, in order."""
    found = sorted(folder.rglob(INPUT))
    return [clip for clip in found if not clip.with_name(OUTPUT).exists()]


def main(
    folder: Annotated[Path, typer.Argument(help=f"Searched for {INPUT}, at any depth.")],
    url: Annotated[str, typer.Option(envvar="AQAA_URL")] = "http://127.0.0.1:8000",
    model: str = "nano",
    api_key: Annotated[str | None, typer.Option(envvar="AQAA_API_KEY")] = None,
    detection: TurnDetectionKind = TURN_DETECTION,
) -> None:
    """Write an output.wav beside every input.wav that has none, one conversation each."""

    async def run() -> None:
        for clip in clips_in(folder):
            wave = read_audio(clip, WIRE_RATE)
            async with connect(url, model=model, api_key=api_key) as server:
                await server.update_session(
                    audio={"input": {"turn_detection": {"type": detection}}}
                )
                heard = await replay(server, wave)
            write_sound(clip.with_name(OUTPUT), heard, WIRE_RATE)
            typer.echo(clip.parent)

    asyncio.run(run())


if __name__ == "__main__":
    typer.run(main)
