"""A wire that is cut for seconds while sound is unplayed: nobody hears it.

The server is the scripted one, whose ids come faster than their sound is played, as a large
decoder's do while text has run out.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest
from token_server import __file__ as token_server_file
from token_server import bundle_without_weights
from wire import Wire, can_be_made

from aqaa.models.errors import EngineDiedError
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.server.engine.contract import SamplingParams
from aqaa.server.engine.settings import VllmHttpSettings
from aqaa.server.engine.vllm.http import VllmHttpEngine

pytestmark = pytest.mark.skipif(not can_be_made(), reason="needs root and /dev/net/tun")

PORT = 8000
PACE = 0.004  # seconds an id; its sound lasts 0.024
IDS = 600
BEFORE_CUT = 350  # ids: 8.4 s of sound in about two
CUT = 3.0  # seconds


@pytest.fixture
def wire() -> Iterator[Wire]:
    """With a token server on its far side."""
    with Wire() as wire:
        program = [sys.executable, token_server_file, wire.far, str(PORT), str(PACE)]
        with subprocess.Popen([*wire.inside, *program]) as process:
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline:
                try:
                    httpx.get(f"http://{wire.far}:{PORT}/health")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            wire.delay = 0.01
            yield wire
            process.kill()


@pytest.fixture
async def engine(wire: Wire, tmp_path: Path) -> AsyncIterator[VllmHttpEngine]:
    bundle = bundle_without_weights(tmp_path)
    engine = VllmHttpEngine(bundle, VllmHttpSettings(url=f"http://{wire.far}:{PORT}"))
    await engine.start()
    yield engine
    await engine.close()


async def answer_over_a_cut(
    engine: VllmHttpEngine, wire: Wire, first: int
) -> tuple[list[int], float]:
    """The ids, and how long nothing would have been heard from the cut on, in seconds."""
    ids: list[int] = []
    heard_until, silence = 0.0, 0.0
    params = SamplingParams(temperature=0.0, max_tokens=IDS)
    async with asyncio.timeout(60), aclosing(engine.generate("s", [first], params)) as stream:
        async for token in stream:
            now = time.monotonic()
            silence += max(0.0, now - heard_until) if len(ids) >= BEFORE_CUT else 0.0
            heard_until = max(heard_until, now) + GROUP_SECONDS / GROUP_TOKENS
            ids.append(token)
            if len(ids) == BEFORE_CUT:
                wire.cut = True
                asyncio.get_running_loop().call_later(CUT, setattr, wire, "cut", False)
    return ids, silence


async def test_an_answer_with_sound_in_hand_outlives_a_cut_of_three_seconds(
    engine: VllmHttpEngine, wire: Wire, tmp_path: Path
) -> None:
    audio = 65_536
    ids, silence = await answer_over_a_cut(engine, wire, audio)
    assert ids == [audio + n for n in range(1, IDS + 1)]
    assert silence < 0.1


async def test_an_answer_without_sound_does_not_wait_for_it(
    engine: VllmHttpEngine, wire: Wire
) -> None:
    with pytest.raises(EngineDiedError):
        await answer_over_a_cut(engine, wire, 100)
