"""All real parts at once, tiny and at random weights: loaded, warmed up, asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import soxr
from live_talk import FakeClock, Talk
from tiny_bundle import tiny_bundle
from torch.utils._python_dispatch import TorchDispatchMode

from aqaa.models.errors import BundleError
from aqaa.server.config import Settings
from aqaa.server.gateway.server import DrainingServer, listen
from aqaa.server.gateway.state import ServerState
from aqaa.server.runtime import Runtime


@pytest.fixture
async def runtime(tmp_path: Path, fixtures_dir: Path) -> AsyncIterator[Runtime]:
    path = tiny_bundle(tmp_path, fixtures_dir, transcriber="paraformer")
    runtime = await Runtime.load(Settings(model=path))
    yield runtime
    await runtime.close()


async def test_a_recording_is_answered_and_written_down_by_the_real_parts(
    runtime: Runtime, fixtures_dir: Path
) -> None:
    question = sorted((fixtures_dir / "wavs").glob("*.wav"))[1].read_bytes()
    state = ServerState.of(Settings(), runtime.parts)
    with listen("127.0.0.1", 0) as listener:
        server = DrainingServer(state.settings)
        server.open(state)
        task = asyncio.create_task(server.serve([listener]))
        await server.listening.wait()
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=base, timeout=120) as http:
            health = await http.get("/health/ready")
            answer = await http.post("/v1/answer", content=question)
            words = await http.post("/v1/audio/transcriptions", files={"file": ("q", question)})
        server.should_exit = True
        await task
    assert set(health.json()["parts"].values()) == {"up"}
    assert answer.status_code == 200
    assert answer.content.startswith(b"RIFF")
    assert words.status_code == 200
    assert words.json()["text"]


async def test_the_first_who_come_find_the_places_that_were_measured_while_warming_up(
    runtime: Runtime,
) -> None:
    places = runtime.parts.places
    assert places is not None
    assert places.offered(0, least=1, most=100_000) < 100_000


class Noting(TorchDispatchMode):
    """Notes what torch computes in the thread that entered it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


async def test_torch_computes_nothing_on_the_event_loop(
    runtime: Runtime, fixtures_dir: Path
) -> None:
    wave, rate = soundfile.read(sorted((fixtures_dir / "wavs").glob("*.wav"))[1])
    pcm = np.rint(32767 * soxr.resample(wave, rate, 24_000)).astype("<i2").tobytes()
    talk = Talk(runtime.parts, FakeClock())
    semantic = {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}}
    by_hand = {"audio": {"input": {"turn_detection": None}}}
    with Noting() as noting:
        await talk.send("session.update", session=semantic)
        await talk.append(pcm + bytes(48_000 * 9))
        await talk.until("response.done", within=60)
        await talk.send("session.update", session=by_hand)
        await talk.append(pcm)
        await talk.send("input_audio_buffer.commit")
        await talk.send("response.create")
        await talk.until("response.done", 2, within=60)
    await talk.close()
    assert noting.seen == []


async def test_a_bundle_that_lacks_a_part_is_named(tmp_path: Path, fixtures_dir: Path) -> None:
    path = tiny_bundle(tmp_path, fixtures_dir)
    (path / "voices" / "joe.safetensors").unlink()
    with pytest.raises(BundleError, match="joe"):
        await Runtime.load(Settings(model=path))
