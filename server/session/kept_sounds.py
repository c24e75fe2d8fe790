"""The sound of a session's newest items, for clients that retrieve them.

A user's item has what the model heard of it: after noise reduction and turn detection. An
assistant's has what was sent of it, up to where it was cut.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from aqaa.server.audio.wire import AudioFormat, OutputConverter, decode
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import work_of
from aqaa.server.parts import wire_audio
from aqaa.server.protocol.base64_data import encode_base64
from aqaa.server.protocol.effects import FetchSound, SoundFetched
from aqaa.server.urgency import Kind

WAITING = 64  # retrievals that may wait: then the socket is not read
OUTBOX_SHARE = 0.5  # of the room for what the client has not read, that one sound may take


@dataclass
class KeptSound:
    """One item's sound, in pieces that are cut between samples."""

    format: AudioFormat
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0  # bytes
    end_ms: int | None = None  # where it was cut; None: it was not

    def kept(self) -> bytes:
        """All of it, up to its end."""
        data = b"".join(self.pieces)
        if self.end_ms is None:
            return data
        return data[: self.end_ms * self.format.rate // 1000 * self.format.sample_bytes]


class KeptSounds:
    """Of one session: at most so many bytes. The oldest item gives way to what is new, whole."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._sounds: dict[str, KeptSound] = {}  # the oldest first

    def begin(self, item_id: str, format: AudioFormat) -> None:
        """The item has sound, in this format, which comes now or later."""
        self._sounds[item_id] = KeptSound(format)

    def add(self, item_id: str, pieces: Sequence[bytes]) -> None:
        """More sound of an item; nothing is kept of one that gave way, or is forgotten."""
        sound = self._sounds.get(item_id)
        if sound is None:
            return
        more = sum(map(len, pieces))
        sound.pieces += pieces
        sound.size += more
        self._bytes += more
        while self._bytes > self._most:
            self.forget(next(iter(self._sounds)))

    def cut(self, item_id: str, audio_end_ms: int) -> None:
        """Only so much of the item was heard."""
        sound = self._sounds.get(item_id)
        if sound is not None:
            sound.end_ms = audio_end_ms

    def forget(self, item_id: str) -> None:
        """The item is gone."""
        sound = self._sounds.pop(item_id, None)
        if sound is not None:
            self._bytes -= sound.size

    def get(self, item_id: str) -> KeptSound | None:
        """What is kept of the item."""
        return self._sounds.get(item_id)

    def kept(self) -> set[str]:
        """The items of which something is kept."""
        return set(self._sounds)


class Retrieval:
    """Fetches sounds as base64, one after the other, as bulk work. `put` never waits."""

    def __init__(
        self,
        sounds: KeptSounds,
        executor: Executor,
        *,
        room: Callable[[], int],
        report: Callable[[SoundFetched], None],
    ) -> None:
        """None yet.

        Args:
            sounds: the session's.
            executor: where it is converted.
            room: how many bytes more may wait for the client to read them.
            report: takes each sound, in the order in which they were asked for.
        """
        self._sounds = sounds
        self._executor = executor
        self._room_left = room
        self._report = report
        self._wanted: deque[FetchSound] = deque()
        self._more = asyncio.Event()
        self._less = asyncio.Event()

    def put(self, wanted: FetchSound) -> None:
        """Fetch this."""
        self._wanted.append(wanted)
        self._more.set()

    async def room(self) -> None:
        """Wait until few enough are waiting."""
        while len(self._wanted) > WAITING:
            self._less.clear()
            await self._less.wait()

    async def run(self) -> None:
        """Work, until cancelled."""
        while True:
            while not self._wanted:
                self._more.clear()
                await self._more.wait()
            wanted = self._wanted.popleft()
            self._less.set()
            audio = await self._fetch(wanted)
            self._report(SoundFetched(wanted, audio))

    async def _fetch(self, wanted: FetchSound) -> str | None:
        """Its base64; None: none is kept, or the client has too much to read as it is."""
        sound = self._sounds.get(wanted.item_id)
        if sound is None:
            return None
        format = sound.format if wanted.format is None else wire_audio(wanted.format)
        data = sound.kept()
        seconds = len(data) / sound.format.bytes_per_second
        length = seconds * format.bytes_per_second * 4 / 3  # of the base64
        if not data or length > OUTBOX_SHARE * self._room_left():
            return None
        work = work_of(lambda: encode_base64(converted(data, sound.format, format)))
        return await self._executor.run(work, Kind.BULK)


def converted(data: bytes, format: AudioFormat, wanted: AudioFormat) -> bytes:
    """Sound in one format as sound in another."""
    if format == wanted:
        return data
    converter = OutputConverter(wanted, format.rate)
    return converter.push(decode(data, format)) + converter.flush()
