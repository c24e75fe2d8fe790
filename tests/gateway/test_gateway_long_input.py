"""Megabytes from a client: the event loop never takes them all into its hands at once.

What a copy of them costs is fresh memory, page by page, at a price that differs between machines:
so the pages are counted, and not the milliseconds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import resource
from collections.abc import Callable

import httpx
import pytest
from loop_watch import LoopWatch, watched_loop
from recordings import CHAT
from scripted_server import Served
from websockets.sync.client import connect

MEGABYTES = 12
MOST_BYTES = 2 * 2**20  # of fresh memory in one callback: an eighth of a copy would be too much


def fresh_memory() -> float:
    """Bytes of memory that this thread was the first to touch."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt * resource.getpagesize()


def say(served: Served) -> None:
    """One message with so much sound, and what is said of it."""
    sound = base64.b64encode(bytes(MEGABYTES * 2**20 * 3 // 4)).decode()
    content = [{"type": "input_audio", "audio": sound}]
    item = {"type": "message", "role": "user", "content": content}
    with connect(served.ws, max_size=None) as client:
        client.send(json.dumps({"type": "conversation.item.create", "item": item}))
        while json.loads(client.recv())["type"] != "error":  # it is more than a minute
            pass


def chat(served: Served) -> None:
    """More text than the prompt has room for."""
    with httpx.Client(base_url=served.http, timeout=60) as client:
        message = {"role": "user", "content": "word " * (MEGABYTES * 2**20 // 5)}
        chat = {**CHAT, "messages": [message]}
        assert client.post("/v1/chat/completions", json=chat).status_code == 400


def ask(served: Served) -> None:
    """A recording that is none."""
    with httpx.Client(base_url=served.http, timeout=60) as client:
        assert client.post("/v1/answer", content=bytes(MEGABYTES * 2**20)).status_code == 400


@pytest.mark.parametrize("send", [say, chat, ask])
async def test_no_callback_copies_a_long_input(
    served: Served, send: Callable[[Served], None]
) -> None:
    async with watched_loop(LoopWatch(computing=fresh_memory)) as watch:
        await asyncio.to_thread(send, served)
    assert watch.busy.seconds < MOST_BYTES, watch.busy.told()
