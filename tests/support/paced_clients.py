"""Clients of a gateway with paced parts: hundreds of conversations, and what the gateway adds."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from bench_tables import markdown
from loop_watch import LoopWatch, watched_loop
from paced_parts import first_sound_due
from recorded_questions import Sound
from serving import cpu_seconds
from watched_server import WatchedServer, watched_server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from aqaa.clients.client import MAX_MESSAGE, WIRE_RATE
from aqaa.clients.load_test import percentile
from aqaa.clients.turn import GapCounter

SERVER = Path(__file__).with_name("paced_server.py")
APPEND_SECONDS = 0.1
TURN_WITHIN = 60.0  # seconds
GOAL_MS = 20.0  # added at the 99th percentile


@dataclass
class Measured:
    """What the clients and the server's process told.

    Attributes:
        sessions: that were held.
        added: milliseconds from when an answer's first sound was due until it was there.
        turns: that were begun while it was measured.
        broken: of them, those without a whole answer.
        lost: connections that were refused or broke.
        underruns: gaps in the sound.
        stall_ms: how long the server's event loop was held, or wanted a CPU, at most.
        client_stall_ms: the same of the clients'.
        cpu_wait: the share of the time in which the server's event loop wanted a CPU and had none.
        session_bytes: memory that each session added.
        cores: processors that the server's process kept busy.
        client_cores: those that the clients' did.
    """

    sessions: int
    added: list[float] = field(default_factory=list)
    turns: int = 0
    broken: int = 0
    lost: int = 0
    underruns: int = 0
    stall_ms: float = 0.0
    client_stall_ms: float = 0.0
    cpu_wait: float = 0.0
    session_bytes: float = 0.0
    cores: float = 0.0
    client_cores: float = 0.0


def table(rows: Sequence[Measured]) -> str:
    """One row for each number of sessions."""
    head = (
        "sessions",
        "turns",
        "broken",
        "connections lost",
        "underruns",
        "added, ms p50 / p99",
        "loop stall, ms",
        "clients' stall, ms",
        "loop without a CPU",
        "memory a session, kB",
        "cores, server",
        "cores, clients",
    )
    return markdown(head, [_cells(row) for row in rows])


def _cells(row: Measured) -> list[str]:
    added = " / ".join(f"{percentile(row.added, q):.0f}" for q in (50, 99)) if row.added else "-"
    return [
        str(row.sessions),
        str(row.turns),
        str(row.broken),
        str(row.lost),
        str(row.underruns),
        added,
        f"{row.stall_ms:.0f}",
        f"{row.client_stall_ms:.0f}",
        f"{row.cpu_wait:.0%}",
        f"{row.session_bytes / 1000:.0f}",
        f"{row.cores:.2f}",
        f"{row.client_cores:.2f}",
    ]


def verdict(rows: Sequence[Measured]) -> str:
    """Up to how many sessions, without a worse row before, the goal was met on these cores."""
    most = 0
    for row in sorted(rows, key=lambda row: row.sessions):
        if row.broken or row.lost or not row.added or percentile(row.added, 99) > GOAL_MS:
            break
        most = row.sessions
    met = f"met up to {most} sessions" if most else "met by none of them"
    return (
        f"The goal, p99 of at most {GOAL_MS:.0f} ms added and no broken answer, was {met}, with "
        f"the clients on the same {len(os.sched_getaffinity(0))} cores."
    )


def appends(wave: Sound) -> list[str]:
    """The messages that bring `wave`, 100 ms each; the last is filled up with silence."""
    size = round(WIRE_RATE * APPEND_SECONDS)
    whole = np.zeros(-(-wave.size // size) * size, np.float32)
    whole[: wave.size] = wave
    pcm = np.rint(whole * 32767).clip(-32768, 32767).astype("<i2")
    return [
        json.dumps(
            {
                "type": "input_audio_buffer.append",
                "audio": base64.b64encode(pcm[begin : begin + size].tobytes()).decode(),
            }
        )
        for begin in range(0, pcm.size, size)
    ]


def append_with(end_ms: int) -> int:
    """The append, counted from 1, that brought the last of so many milliseconds of sound."""
    return math.ceil(end_ms / 1000 / APPEND_SECONDS)


SILENCE = appends(np.zeros(round(WIRE_RATE * APPEND_SECONDS), np.float32))[0]


class Talker:
    """One conversation. `begin` and `end` bound the turns that are counted, by when they began."""

    def __init__(
        self,
        client: ClientConnection,
        spoken: Sequence[list[str]],
        choice: random.Random,
        measured: Measured,
    ) -> None:
        self._client = client
        self._spoken = spoken
        self._choice = choice
        self._measured = measured
        self._blocks: list[str] = []  # of the question, that are to be said; the next is the last
        self._sent: list[float] = []  # when each append of the session left

    async def run(self, begin: float, end: float) -> None:
        """Ask until `end`; then the turn is finished. Times are of `time.monotonic`."""
        sending = asyncio.create_task(self._send())
        try:
            while (now := time.monotonic()) < end:
                counts = now >= begin
                self._measured.turns += counts
                answered = False
                try:
                    async with asyncio.timeout(TURN_WITHIN):
                        answered = await self._turn(counts)
                except TimeoutError:
                    pass
                self._measured.broken += counts and not answered
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await sending

    async def _send(self) -> None:
        start = time.monotonic()
        while True:
            await asyncio.sleep(start + len(self._sent) * APPEND_SECONDS - time.monotonic())
            block = self._blocks.pop() if self._blocks else SILENCE
            self._sent.append(time.monotonic())
            await self._client.send(block)

    async def _turn(self, counts: bool) -> bool:
        """Ask and hear the answer out; whether it was whole."""
        self._blocks = self._choice.choice(self._spoken)[::-1]
        turn_ended: float | None = None
        speaker = GapCounter()
        heard = False
        while True:
            event = json.loads(await self._client.recv())
            now = time.monotonic()
            match event["type"]:
                case "input_audio_buffer.speech_stopped":
                    turn_ended = self._sent[append_with(event["audio_end_ms"]) - 1]
                case "response.output_audio.delta" if event["delta"]:
                    if not heard and turn_ended is not None and counts:
                        due = turn_ended + first_sound_due()
                        self._measured.added.append(1000 * (now - due))
                    heard = True
                    speaker.play(len(event["delta"]) * 3 // 4 // 2, now)
                case "response.done":
                    if event["response"]["status"] == "cancelled":
                        heard, speaker = False, GapCounter()  # the question went on after a pause
                        continue
                    self._measured.underruns += counts * speaker.gaps
                    await asyncio.sleep((speaker.until or now) - now)
                    return heard and event["response"]["status"] == "completed"
                case "error":
                    return False


async def measure(
    sessions: int, spoken: Sequence[list[str]], seconds: float, ramp: float
) -> Measured:
    """Hold so many sessions and measure them for so long, after all have begun."""
    measured = Measured(sessions)
    async with (
        watched_server(SERVER, str(sessions + 1)) as server,
        watched_loop(LoopWatch.by_the_wall()) as own,
    ):
        process, clients = psutil.Process(server.pid), psutil.Process()
        await _hold(server, 1, spoken, Measured(1), 0.0, 1.0)  # what only a first session costs
        idle = process.memory_info().rss
        holding = asyncio.create_task(_hold(server, sessions, spoken, measured, ramp, seconds))
        await asyncio.sleep(ramp)
        await server.health()
        own.reset()
        before, before_own, began = cpu_seconds(process), cpu_seconds(clients), time.monotonic()
        waited = _cpu_wait(server.pid)
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        measured.cores = (cpu_seconds(process) - before) / took
        measured.client_cores = (cpu_seconds(clients) - before_own) / took
        measured.cpu_wait = (_cpu_wait(server.pid) - waited) / took
        measured.stall_ms = (await server.health()).held[0][0]
        measured.client_stall_ms = 1000 * own.held.seconds
        measured.session_bytes = max(0, process.memory_info().rss - idle) / sessions
        await holding
    return measured


async def _hold(
    server: WatchedServer,
    sessions: int,
    spoken: Sequence[list[str]],
    measured: Measured,
    ramp: float,
    seconds: float,
) -> None:
    began = time.monotonic()

    async def session(number: int) -> None:
        await asyncio.sleep(ramp * number / sessions)
        talk = began + ramp, began + ramp + seconds
        try:
            async with connect(
                server.ws, max_size=MAX_MESSAGE, max_queue=None, compression=None, open_timeout=60
            ) as client:
                await Talker(client, spoken, random.Random(number), measured).run(*talk)
        except (OSError, WebSocketException):
            measured.lost += 1

    await asyncio.gather(*(session(number) for number in range(sessions)))


def _cpu_wait(pid: int) -> float:
    """Seconds for which a process's main thread has waited for a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
