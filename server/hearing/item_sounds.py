"""Sounds that come whole, inside items: tokenised beside the session's own input, as bulk work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from aqaa.models.errors import AudioError, NoSpeechError
from aqaa.server.audio.wire import InputConverter, encode
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Work
from aqaa.server.hearing.no_speech import SpeechProbability, check_speech
from aqaa.server.hearing.speech_events import HEARD, TurnSound
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.transcribing import TurnWindows
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.limits import NO_SPEECH
from aqaa.server.urgency import Kind

BACKLOG_BYTES = 2_000_000  # of sound that waits (20 s at 48 kHz): then the socket is not read


class ItemSounds:
    """One session's. `put` never waits; `room` does, while too much sound waits."""

    def __init__(
        self,
        tokenising: Tokenising,
        vad: Callable[[], SpeechProbability],
        executor: Executor,
        *,
        on_sound: Callable[[str, TurnSound], None],
        on_bad_audio: Callable[[ProtocolError], None],
    ) -> None:
        """Reports go to the callbacks, on the event loop: an item's sound, after its fault if any.

        Args:
            tokenising: for whole recordings.
            vad: makes a VAD stream, for one recording.
            executor: where it computes.
            on_sound: takes an item's id and its sound; without tokens if it is unusable.
            on_bad_audio: takes what is wrong with sound that is not of the stated format, or with a
                question in which nobody speaks.
        """
        self._tokenising = tokenising
        self._vad = vad
        self._executor = executor
        self._on_sound = on_sound
        self._on_bad_audio = on_bad_audio
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting_bytes = 0
        self._less = asyncio.Event()

    def put(
        self, item_id: str, data: bytes, converter: Callable[[], InputConverter], *, asks: bool
    ) -> None:
        """Tokenise `data`, in the format that `converter` reads; `asks`: it must hold a question,
        else whatever is there is written down."""
        self._waiting_bytes += len(data)
        task = asyncio.create_task(self._tokenise(item_id, self._encode(data, converter, asks)))
        self._tasks[item_id] = task

        def done(_: asyncio.Task[None]) -> None:
            self._waiting_bytes -= len(data)
            self._less.set()
            if self._tasks.get(item_id) is task:
                del self._tasks[item_id]

        task.add_done_callback(done)

    def forget(self, item_id: str) -> None:
        """The item is gone: nothing more is computed for it, and nothing reported."""
        task = self._tasks.pop(item_id, None)
        if task is not None:
            task.cancel()

    async def room(self) -> None:
        """Wait until little enough is waiting."""
        while self._waiting_bytes > BACKLOG_BYTES:
            self._less.clear()
            await self._less.wait()

    async def close(self) -> None:
        """Stop."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tokenise(self, item_id: str, work: Work[TurnSound]) -> None:
        try:
            sound = await self._executor.run(work, Kind.BULK)
        except AudioError as error:
            self._on_sound(item_id, TurnSound((), TurnWindows(None, ())))
            code = NO_SPEECH if isinstance(error, NoSpeechError) else "invalid_value"
            self._on_bad_audio(ProtocolError(code, f"item {item_id}: {error}", "item.content"))
        else:
            self._on_sound(item_id, sound)

    def _encode(
        self, data: bytes, converter: Callable[[], InputConverter], asks: bool
    ) -> Work[TurnSound]:
        whole = converter()
        half = len(data) % whole.source.sample_bytes  # of a sample that the client cut in two
        samples = np.concatenate((whole.push(data[: len(data) - half]), whole.flush()))
        if asks:
            yield from check_speech(self._vad(), samples)
        recording = yield from self._tokenising.encode(samples)
        windows = TurnWindows(None, recording.windows)
        return TurnSound(tuple(recording.ids), windows, (encode(samples, HEARD),))
