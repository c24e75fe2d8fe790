"""Recordings as PCM16 in real-time pieces, the way the real clients' microphones hand them over."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

if TYPE_CHECKING:
    from openai.resources.realtime.realtime import AsyncRealtimeConnection

RATE = 24_000
PIECE_SECONDS = 0.02
PIECE = round(RATE * PIECE_SECONDS)


def pcm16(path: Path) -> bytes:
    """A recording as PCM16 at RATE."""
    wave, native = soundfile.read(path, dtype="float32")
    return bytes((soxr.resample(wave, native, RATE) * 32767).astype("<i2").tobytes())


def samples(pcm: bytes) -> NDArray[np.float32]:
    """PCM16 as float32 in [-1, 1)."""
    return np.frombuffer(pcm, "<i2").astype(np.float32) / 32768


async def in_real_time(pcm: bytes) -> AsyncIterator[bytes]:
    """20 ms pieces of PCM16, each when its last sample has sounded, then silence for ever."""
    clock = asyncio.get_running_loop().time
    start, count = clock(), 0
    size = 2 * PIECE
    while True:
        piece = pcm[count * size : (count + 1) * size]
        count += 1
        await asyncio.sleep(start + count * PIECE_SECONDS - clock())
        yield piece.ljust(size, b"\0")


async def speak(connection: AsyncRealtimeConnection, pcm: bytes) -> None:
    """Hand `pcm` to openai-python as a microphone does, then silence, until cancelled."""
    async with aclosing(in_real_time(pcm)) as pieces:
        async for piece in pieces:
            audio = base64.b64encode(piece).decode()
            await connection.input_audio_buffer.append(audio=audio)
