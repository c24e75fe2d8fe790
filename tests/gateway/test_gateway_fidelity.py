"""The sound on the wire is the vocoder's own, sample for sample, after the declared resampling."""

from __future__ import annotations

import asyncio
import base64
import json

import numpy as np
import pytest
from scripted import Voices, woven
from scripted_server import Served
from websockets.asyncio.client import connect

from aqaa.server.parts import WireFormat, output_of
from aqaa.server.protocol.types import Json, PcmaFormat, PcmFormat, PcmuFormat

HELLO: Json = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "hi"}],
}
GROUPS = 23


async def spoken(served: Served, format: WireFormat, speed: float = 1.0) -> bytes:
    """All sound of one answer."""
    output = {"format": format.model_dump(), "speed": speed}
    sound = b""
    async with asyncio.timeout(20), connect(served.ws) as client:
        for message in (
            {"type": "session.update", "session": {"audio": {"output": output}}},
            {"type": "conversation.item.create", "item": HELLO},
            {"type": "response.create"},
        ):
            await client.send(json.dumps(message))
        while (event := json.loads(await client.recv()))["type"] != "response.done":
            assert event["type"] != "error", event
            if event["type"] == "response.output_audio.delta":
                sound += base64.b64decode(event["delta"])
    return sound


@pytest.mark.parametrize(
    "format",
    [
        PcmFormat(rate=8000),
        PcmFormat(rate=16000),
        PcmFormat(rate=24000),
        PcmFormat(rate=48000),
        PcmuFormat(),
        PcmaFormat(),
    ],
    ids=["8k", "16k", "24k", "48k", "pcmu", "pcma"],
)
@pytest.mark.parametrize("speed", [1.0, 1.25])
async def test_the_deltas_together_are_the_vocoders_sound(
    served: Served, format: WireFormat, speed: float
) -> None:
    served.engine.answer = lambda prompt: woven("some words that are said", GROUPS)
    voice = Voices().stream("joe", speed)
    tokens = [t - 2000 for t in served.engine.answer(()) if t >= 2000]
    whole = np.concatenate([voice.sound(token) for token in tokens[::5]])
    converter = output_of(format)
    assert await spoken(served, format, speed) == converter.push(whole) + converter.flush()
