"""Work that nobody listens to live, without end, from a process of its own.

Run as `bulk_work.py URL UPLOAD_SECONDS ITEM_SECONDS` it prints a line when its work is under way.
At the end of its input it stops and prints, as JSON, how often each kind of work was done (`Done`).
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
from recorded_questions import Sound, questions
from websockets.asyncio.client import connect

from aqaa.clients.client import MAX_MESSAGE, WIRE_RATE, realtime_url
from aqaa.server.audio.wire import Resampler

ANSWERS = 4  # REST answers at once
ITEM_RATE = 96_000  # Hz: 60 s of pcm16 at it are 14.6 MiB in base64, OpenAI's bound is 15
PATIENCE = 300.0  # seconds for one piece of work

ONE_WORD = {
    "type": "response.create",
    "response": {"output_modalities": ["text"], "max_output_tokens": 1},
}

Done = Counter[str]  # "upload", "answer", "item"; "upload refused: ..." and so on


def bulk_settings() -> dict[str, str]:
    """What a server needs so that all of the work finds a place, beside one conversation."""
    return {
        "AQAA_MAX_REST_REQUESTS": str(ANSWERS + 1),  # the upload beside the answers
        "AQAA_MIN_SESSIONS": "2",  # the items come in a session of their own
    }


def bulk_work(url: str, upload_seconds: float, item_seconds: float) -> AbstractContextManager[Done]:
    """Such a process beside the block; its counts are in the value once the block has ended."""
    return working(Path(__file__), url, str(upload_seconds), str(item_seconds))


@contextmanager
def working(program: Path, *arguments: str) -> Iterator[Done]:
    """A program beside the block which prints a line when it has begun, and its counts at the end.

    Raises:
        RuntimeError: it failed.
    """
    done = Done()
    command = [sys.executable, str(program), *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline():
                raise RuntimeError(f"{program.stem} did not begin")
            yield done
            told, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    if process.returncode != 0:
        raise RuntimeError(f"{program.stem} ended with {process.returncode}")
    done.update(json.loads(told))


def long_speech(seconds: float, rate: int) -> Sound:
    """The questions one after the other, again and again: float32 [n] at `rate` Hz."""
    wave = np.concatenate(questions())
    speech = np.resize(wave, round(seconds * WIRE_RATE)).astype(np.float32)
    return Resampler(WIRE_RATE, rate).push(speech, last=True)[: round(seconds * rate)]


def wav(wave: Sound, rate: int) -> bytes:
    """A file."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


async def _asking(url: str, kind: str, recording: bytes, done: Done) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        while True:
            reply = await client.post("/v1/answer", content=recording)
            if reply.status_code == 200:
                done[kind] += 1
            else:
                done[f"{kind} refused: {reply.text[:200]}"] += 1
                await asyncio.sleep(1.0)


async def _putting_items(url: str, item: str, done: Done) -> None:
    """Each item is deleted once it has been tokenised."""
    async with connect(
        realtime_url(url, "nano"), max_size=MAX_MESSAGE, compression=None, proxy=None
    ) as client:
        format = {"type": "audio/pcm", "rate": ITEM_RATE}
        session = {"type": "realtime", "audio": {"input": {"format": format}}}
        await client.send(json.dumps({"type": "session.update", "session": session}))
        while True:
            await client.send(item)
            await client.send(json.dumps(ONE_WORD))  # which waits for the item's tokens
            put = None
            while (event := json.loads(await client.recv()))["type"] != "response.done":
                if event["type"] == "conversation.item.done" and put is None:
                    put = event["item"]["id"]
                if event["type"] == "error":
                    done[f"item refused: {event['error']['message'][:200]}"] += 1
            if put is None:
                await asyncio.sleep(1.0)
                continue
            done["item"] += 1
            delete = {"type": "conversation.item.delete", "item_id": put}
            await client.send(json.dumps(delete))


async def main(url: str, upload_seconds: float, item_seconds: float) -> None:
    """Work until the input ends."""
    upload = wav(long_speech(upload_seconds, 16_000), 16_000)
    question = wav(questions()[0], WIRE_RATE)
    pcm = np.rint(long_speech(item_seconds, ITEM_RATE) * 32767).clip(-32768, 32767).astype("<i2")
    content = {"type": "input_audio", "audio": base64.b64encode(pcm.tobytes()).decode()}
    message: dict[str, Any] = {"type": "message", "role": "user", "content": [content]}
    item = json.dumps({"type": "conversation.item.create", "item": message})
    done = Done()
    tasks = [
        asyncio.create_task(work)
        for work in (
            _asking(url, "upload", upload, done),
            *(_asking(url, "answer", question, done) for _ in range(ANSWERS)),
            _putting_items(url, item, done),
        )
    ]
    await asyncio.sleep(1.0)
    sys.stdout.write("under way\n")
    sys.stdout.flush()
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([over, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # it never ends but by a fault
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    sys.stdout.write(json.dumps(done) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3])))
