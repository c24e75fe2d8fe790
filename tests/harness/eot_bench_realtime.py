"""eot-bench's way to a server of OpenAI's Realtime API: `eot_bench_realtime:RealtimeAdapter`.

eot-bench has an adapter for OpenAI's own address, and takes others by name. This one asks for the
same session, at the address in `OPENAI_BASE_URL`. It knows nothing of aqaa, and of eot-bench only
what its README says of adapters of streams.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect

WIRE_RATE = 24_000  # Hz, the protocol's PCM16
AFTER_SECONDS = 1.0  # the turn's last events come no later than this after its last sound
SHORTEST_SPAN = 0.1  # seconds of silence that eot-bench asks about
EPSILON = 1e-6  # of its seconds, which are sums of decimal fractions


class RealtimeAdapter:
    """Replays turns in real time, a session each, under `semantic_vad` without answers.

    What is scored is the server's own clock: the `audio_end_ms` of `speech_stopped`, which counts
    from the first sample. The probability of the turn's end is 1 from there on, 0 before.

    Attributes:
        model, chunk_ms: what eot-bench's options of these names set.
        concurrency: turns at once, unless eot-bench is told otherwise.
    """

    def __init__(self, speed: float = 1.0) -> None:
        """`speed`: times real time, for a server whose clock is the sound."""
        self.base_url = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
        self.eagerness = os.environ.get("EAGERNESS", "auto")
        self.model = "nano"
        self.chunk_ms = 100
        self.concurrency = 1
        self._speed = speed

    @property
    def adapter_id(self) -> str:
        """What eot-bench calls the run."""
        return f"realtime/{self.model}_semantic_vad_{self.eagerness}"

    async def predict_turn(
        self, row: Mapping[str, Any], *, inference_interval: float
    ) -> dict[str, Any]:
        """What the server said of one turn of the data.

        Raises:
            RuntimeError: it answered with an error.
        """
        wave = sound_of(row["audio"])
        ends = await self._ends(wave)
        return {
            "id": row["id"],
            "audio_sec": wave.size / WIRE_RATE,
            "events": [{"event": "SpeechStopped", "timestamp": at, "p_eot": 1.0} for at in ends],
            "prediction_rows": scored(row, ends, inference_interval),
        }

    async def _ends(self, wave: NDArray[np.float32]) -> list[float]:
        """Seconds of sound after which the server found ends of turns."""
        key = os.environ.get("OPENAI_API_KEY")
        base = self.base_url.replace("http", "ws", 1)
        url = f"{base}/realtime?{urlencode({'model': self.model})}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        ends: list[float] = []
        async with connect(url, additional_headers=headers, max_size=None, proxy=None) as socket:
            await socket.send(json.dumps({"type": "session.update", "session": self._session()}))
            ready = asyncio.Event()
            reading = asyncio.create_task(_read(socket, ready, ends))
            try:
                await _first(ready.wait(), reading)
                await _first(self._say(socket, wave), reading)
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading
        return ends

    def _session(self) -> dict[str, Any]:
        detection = {
            "type": "semantic_vad",
            "eagerness": self.eagerness,
            "create_response": False,
            "interrupt_response": False,
        }
        heard = {"format": {"type": "audio/pcm", "rate": WIRE_RATE}, "turn_detection": detection}
        return {"type": "realtime", "audio": {"input": heard}}

    async def _say(self, socket: ClientConnection, wave: NDArray[np.float32]) -> None:
        start, size = time.monotonic(), WIRE_RATE * self.chunk_ms // 1000
        wire = (np.clip(wave, -1.0, 1.0) * 32767).astype("<i2")
        for at in range(0, wire.size, size):
            chunk = wire[at : at + size]
            due = start + (at + chunk.size) / WIRE_RATE / self._speed
            await asyncio.sleep(due - time.monotonic())
            audio = base64.b64encode(chunk.tobytes()).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await asyncio.sleep(AFTER_SECONDS)


async def _read(socket: ClientConnection, ready: asyncio.Event, ends: list[float]) -> None:
    async for message in socket:
        event = json.loads(message)
        match event["type"]:
            case "session.updated":
                ready.set()
            case "input_audio_buffer.speech_stopped":
                ends.append(event["audio_end_ms"] / 1000)
            case "error":
                raise RuntimeError(f"the server answered: {event['error']['message']}")
    raise RuntimeError("the server ended the session before the turn was over")


async def _first(work: Any, reading: asyncio.Task[None]) -> None:
    """Do `work`, unless `reading` fails before."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task, reading}, return_when=asyncio.FIRST_COMPLETED)
    if reading.done():
        task.cancel()
        await reading  # raises what ended it
    await task


def sound_of(audio: Mapping[str, Any]) -> NDArray[np.float32]:
    """The data's sound, `array` and `sampling_rate` or a file's `bytes`: mono at `WIRE_RATE`."""
    if audio.get("array") is not None:
        wave, rate = np.asarray(audio["array"], np.float32), int(audio["sampling_rate"])
    else:
        wave, rate = soundfile.read(io.BytesIO(audio["bytes"]), dtype="float32")
    mono = wave.mean(axis=1) if wave.ndim > 1 else wave
    return np.asarray(soxr.resample(mono, rate, WIRE_RATE), np.float32)


def scored(
    row: Mapping[str, Any], ends: Sequence[float], interval: float
) -> list[dict[str, object]]:
    """eot-bench's rows: for each silence of the turn, every `interval` seconds from its beginning
    and at its end, whether an end of the turn had been found in it. The last one is the end."""
    spans = row["silence_spans"]
    rows: list[dict[str, object]] = []
    for index, span in enumerate(spans):
        start, end = float(span["start"]), float(span["end"])
        if end - start < SHORTEST_SPAN - EPSILON:
            continue
        steps = int((end - start) / interval + EPSILON)
        grid = [start + step * interval for step in range(steps + 1)]
        if grid[-1] < end - EPSILON:
            grid.append(end)
        for at in grid:
            found = any(start - EPSILON <= one <= at + EPSILON for one in ends)
            rows.append(
                {
                    "id": row["id"],
                    "span_index": index,
                    "timestamp": round(at, 6),
                    "silence_dur": round(at - start, 6),
                    "p_eot": float(found),
                    "label": "eot" if index == len(spans) - 1 else "hold",
                }
            )
    return rows
