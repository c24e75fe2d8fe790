"""The haproxy files: before real gateways, and before stand-ins of vLLM, killed and frozen."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import which

import httpx
import psutil
import pytest
from host_pauses import HOST_SECONDS
from programs import PATIENCE, eventually, haproxy, redis_server, running, status
from redis import Redis
from serving import AQAA, READY_WITHIN, free_port
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from aqaa.server.gateway.transcriptions import MAX_SECONDS

pytestmark = [
    pytest.mark.programs,
    pytest.mark.skipif(which("haproxy") is None, reason="needs haproxy: apt-get install haproxy"),
]
ROOT = Path(__file__).resolve().parents[2]
WORKER = ROOT / "tests/support/token_worker.py"
KEY = "a-key-of-both-gateways"
# --- gateways -------------------------------------------------------------------------------------


@pytest.fixture
def gateways() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Two of them, by base URL."""
    with ExitStack() as stack:
        found = {}
        for port in (free_port(), free_port()):
            command = [str(AQAA), "serve", "--port", str(port)]
            process = stack.enter_context(running(command, AQAA_API_KEYS=KEY))
            found[f"http://127.0.0.1:{port}"] = process
        for base in found:
            eventually(lambda base=base: status(f"{base}/health/ready") == 200, READY_WITHIN)
        yield found


def sessions(gateway: str) -> int:
    text = httpx.get(f"{gateway}/metrics").text
    found = re.search(r"^aqaa_active_sessions (\S+)", text, re.M)
    assert found is not None
    return int(float(found[1]))


def client_secret(gateway: str) -> str:
    url = f"{gateway}/v1/realtime/client_secrets"
    made = httpx.post(url, headers={"Authorization": f"Bearer {KEY}"}, json={}).json()
    return str(made["value"])


def close_code(socket: ClientConnection) -> int | None:
    """What the server closes the socket with, or its process's death."""
    try:
        while True:
            socket.recv(timeout=PATIENCE)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def test_a_gateway_is_waited_for_while_it_writes_down_the_longest_recording() -> None:
    """Its words are sent all at once, and may take as long to make as it lasts."""
    config = (ROOT / "deploy/haproxy/gateways.cfg").read_text(encoding="utf-8")
    ((amount, unit),) = re.findall(r"^  timeout server (\d+)([smh])\b", config, re.M)
    assert int(amount) * {"s": 1, "m": 60, "h": 3600}[unit] >= MAX_SECONDS


def test_gateways_share_callers_and_one_that_drains_or_dies_takes_only_its_own_along(
    gateways: dict[str, subprocess.Popen[bytes]],
) -> None:
    first, second = gateways
    places = {f"GATEWAY_{i}": g.removeprefix("http://") for i, g in enumerate(gateways, 1)}
    with haproxy("gateways.cfg", "AQAA_BIND", **places) as (front, _), ExitStack() as stack:
        eventually(lambda: status(f"http://{front}/health/ready") == 200)
        assert status(f"http://{front}/metrics") == 403

        def call(key: str = KEY) -> ClientConnection:
            headers = {"Authorization": f"Bearer {key}"}
            url = f"ws://{front}/v1/realtime"
            socket = stack.enter_context(connect(url, additional_headers=headers))
            assert "session.created" in str(socket.recv(timeout=PATIENCE))
            return socket

        owned: dict[str, list[ClientConnection]] = {first: [], second: []}
        for _ in range(4):
            before = sessions(first)
            socket = call()
            owned[first if sessions(first) > before else second].append(socket)
        assert [len(sockets) for sockets in owned.values()] == [2, 2]
        secret = client_secret(first)

        gateways[first].terminate()
        assert [close_code(socket) for socket in owned[first]] == [1012, 1012]
        eventually(lambda: status(f"http://{front}/health/ready") == 200)
        call(secret)  # the gateway that made it is gone
        assert sessions(second) == 3
        for socket in owned[second]:
            assert socket.ping().wait(PATIENCE)

        gateways[second].kill()
        assert [close_code(socket) for socket in owned[second]] == [None, None]
        eventually(lambda: status(f"http://{front}/health/ready") == 503)


@pytest.fixture
def sharing_gateways() -> Iterator[tuple[dict[str, str], Redis]]:
    """Two with scripted models, the Redis server between them, and one conversation a key."""
    with ExitStack() as stack:
        store, _ = stack.enter_context(redis_server(free_port()))
        settings = {"AQAA_API_KEYS": KEY, "AQAA_STORE": store, "AQAA_MAX_SESSIONS_PER_KEY": "1"}
        places = {}
        for number in (1, 2):
            port = str(free_port())
            command = [sys.executable, "-m", "uvicorn", "scripted_asgi:app", "--port", port]
            folder = ["--app-dir", str(WORKER.parent), "--log-level", "warning"]
            stack.enter_context(running([*command, *folder], **settings))
            base = f"http://127.0.0.1:{port}"
            eventually(lambda base=base: status(f"{base}/health/ready") == 200, READY_WITHIN)
            places[f"GATEWAY_{number}"] = f"127.0.0.1:{port}"
        yield places, stack.enter_context(Redis.from_url(store))


@pytest.mark.skipif(which("redis-server") is None, reason="needs redis-server (Debian)")
def test_gateways_behind_one_name_share_secrets_answers_and_places(
    sharing_gateways: tuple[dict[str, str], Redis],
) -> None:
    places, store = sharing_gateways
    with haproxy("gateways.cfg", "AQAA_BIND", **places) as (front, _):
        eventually(lambda: status(f"http://{front}/health/ready") == 200)
        chat = {
            "model": "scripted",
            "modalities": ["text", "audio"],
            "audio": {"voice": "joe", "format": "wav"},
            "messages": [{"role": "user", "content": "hi"}],
        }

        def answer(*more: dict[str, object]) -> httpx.Response:
            asked = {**chat, "messages": [*chat["messages"], *more]}
            headers = {"Authorization": f"Bearer {KEY}"}
            url = f"http://{front}/v1/chat/completions"
            return httpx.post(url, headers=headers, json=asked, timeout=PATIENCE)

        audio = answer().json()["choices"][0]["message"]["audio"]
        said: dict[str, object] = {"role": "assistant", "audio": {"id": audio["id"]}}
        follow_up: dict[str, object] = {"role": "user", "content": "and then?"}
        assert [answer(said, follow_up).status_code for _ in range(6)] == [200] * 6

        secret = client_secret(f"http://{front}")
        headers = {"Authorization": f"Bearer {secret}"}

        def call() -> ClientConnection:
            return connect(f"ws://{front}/v1/realtime", additional_headers=headers)

        for _ in range(6):  # one after the other: both gateways take some
            with call() as socket:
                assert "session.created" in str(socket.recv(timeout=PATIENCE))
            eventually(lambda: not store.keys("aqaa:places:*"))  # it hears a little later
        with call() as inside:
            assert "session.created" in str(inside.recv(timeout=PATIENCE))
            for _ in range(4):
                with call() as late:
                    assert close_code(late) == 1013


# --- decoders -------------------------------------------------------------------------------------


@pytest.fixture
def workers() -> Iterator[dict[str, psutil.Process]]:
    """Two of them, by port."""
    with ExitStack() as stack:
        found = {}
        for port in (str(free_port()), str(free_port())):
            command = [sys.executable, str(WORKER), port]
            found[port] = psutil.Process(stack.enter_context(running(command)).pid)
            eventually(lambda port=port: status(f"http://127.0.0.1:{port}/health") == 200)
        yield found


@pytest.fixture
def router(workers: dict[str, psutil.Process]) -> Iterator[tuple[str, str]]:
    places = {f"VLLM_{i}": f"127.0.0.1:{port}" for i, port in enumerate(workers, 1)}
    with haproxy("vllm.cfg", "VLLM_BIND", **places) as addresses:
        eventually(lambda: status(f"http://{addresses[0]}/health") == 200)
        yield addresses


@contextmanager
def asking(front: str, session: str) -> Iterator[tuple[str, Iterator[bytes]]]:
    """An answer that goes on: who gives it, and what comes."""
    url = f"http://{front}/inference/v1/generate"
    headers = {"X-Session-ID": session}
    with httpx.stream("POST", url, headers=headers, json={}, timeout=PATIENCE) as answer:
        assert answer.status_code == 200
        yield answer.headers["X-Worker"], answer.iter_raw()


def who(front: str, session: str) -> str:
    with asking(front, session) as (worker, _):
        return worker


def seconds_until_broken(events: Iterator[bytes]) -> float:
    began = time.monotonic()
    try:
        for _ in events:
            assert time.monotonic() - began < PATIENCE, "the stream goes on"
    except httpx.TransportError:
        pass
    return time.monotonic() - began


def test_a_conversation_stays_with_its_decoder_and_both_get_some(
    router: tuple[str, str], workers: dict[str, psutil.Process]
) -> None:
    front, _ = router
    first = {f"session-{i}": who(front, f"session-{i}") for i in range(12)}
    assert {name: who(front, name) for name in first} == first
    assert set(first.values()) == set(workers)


@pytest.mark.parametrize(
    ("blow", "within"), [(signal.SIGKILL, 1.0), (signal.SIGSTOP, 2.0)], ids=["killed", "frozen"]
)
def test_an_answer_of_a_lost_decoder_breaks_at_once_and_goes_on_at_the_other(
    router: tuple[str, str],
    workers: dict[str, psutil.Process],
    blow: signal.Signals,
    within: float,
) -> None:
    """Checks run each 0.3 s, wait 0.5 s and fail twice: 1.6 s."""
    front, stats = router
    with asking(front, "session") as (worker, events):
        next(events)
        workers[worker].send_signal(blow)
        assert seconds_until_broken(events) < within + HOST_SECONDS
    other = next(port for port in workers if port != worker)
    assert who(front, "session") == other
    eventually(lambda: 'haproxy_backend_active_servers{proxy="vllm"} 1' in metrics(stats))
    assert status(f"http://{front}/health") == 200


def test_the_router_is_ill_only_when_no_decoder_is_left(
    router: tuple[str, str], workers: dict[str, psutil.Process]
) -> None:
    front, stats = router
    for worker in workers.values():
        worker.kill()
    eventually(lambda: status(f"http://{front}/health") == 503)
    text = metrics(stats)
    assert 'haproxy_backend_active_servers{proxy="vllm"} 0' in text
    assert 'haproxy_server_status{proxy="vllm",server="a",state="DOWN"} 1' in text


def metrics(stats: str) -> str:
    return httpx.get(f"http://{stats}/metrics").text
