"""`make fuzz`: a million mutated client events against the real gateway with scripted models.

`python tests/endurance/fuzz.py [EVENTS [SEED]]`. A session's messages follow from its seed alone.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from fuzzing import Fuzzed, fuzz
from loop_watch import BUSY_MS, HELD_MS
from watched_server import Health, watched_server

EVENTS = 1_000_000
IDLE_WITHIN = 60  # seconds


async def run(events: int, seed: int) -> tuple[Fuzzed, Health]:
    """Fuzz, and what the server says of itself once all sessions are over."""
    async with watched_server() as server:
        found = await fuzz(server, events, seed)
        first = await server.health()
        for _ in range(IDLE_WITHIN):
            health = await server.health()
            if not health.sessions and not health.answers:
                break
            await asyncio.sleep(1)
    found.wrong += first.faults + health.faults
    if health.sessions or health.answers:
        found.wrong.append(f"{health.sessions} sessions and {health.answers} answers are left")
    for one in (first, health):
        for ms, what in one.busy:
            if ms > BUSY_MS:
                found.wrong.append(f"{what} computed {ms:.0f} ms on the event loop")
        for ms, what in one.held:
            if ms > HELD_MS:
                found.wrong.append(f"{what} held the event loop for {ms:.0f} ms")
    return found, first


def main() -> int:
    """Run, tell, and return the exit code."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    began = time.monotonic()
    found, health = asyncio.run(run(events, seed))
    print(
        f"{found.events} events in {found.sessions} sessions, {found.answers} answers,"
        f" {time.monotonic() - began:.0f} s; event loop busy {health.busy[0][0]:.0f} ms"
        f" and held {health.held[0][0]:.0f} ms at most;"
        f" {health.rss / 2**20:.0f} MiB, {health.threads} threads, {health.files} files"
    )
    print("\n".join(f"{count:8} {kind}" for kind, count in found.said.most_common()))
    print("\n".join(f"WRONG: {what}" for what in found.wrong) or "nothing went wrong")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
