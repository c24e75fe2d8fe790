"""The JavaScript client that tests speak through, where `make setup` puts it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NODE = "node"
TALK = Path(__file__).parent / "agents_js" / "talk.mjs"
SECONDS = 120.0  # of which a few are speech: node and the machine may be slow
AGENTS = Path(sys.prefix) / "share" / "agents-js" / "node_modules"


def has_agents() -> bool:
    """Whether @openai/agents-realtime and node are there."""
    return shutil.which(NODE) is not None and (AGENTS / "@openai" / "agents-realtime").is_dir()


def agents_modules() -> Path:
    """The folder of modules; the test that asks is skipped where they are not installed."""
    if not has_agents():
        pytest.skip("needs node and @openai/agents-realtime: make setup")
    return AGENTS


async def talk(url: str, folder: Path, *, turns: int, answers: int, said: bytes) -> Any:
    """What the client has seen in a conversation of so many turns and answers.

    Args:
        url: the server's, with its model.
        folder: where files may be written.
        turns: how often `said` is spoken.
        answers: how many there are, a function's call among them.
        said: PCM16 at 24 kHz.
    """
    speech = folder / "speech.pcm"
    speech.write_bytes(said)
    command = [NODE, TALK, agents_modules(), url, speech, turns, answers]
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, faults = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, faults.decode()
    seen = json.loads(out)
    return seen | {"sound": base64.b64decode(seen["sound"])}
