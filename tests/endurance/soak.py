"""`make soak`: an hour of mixed work; a server keeps nothing of it.

`python tests/endurance/soak.py [SECONDS]`: conversations with barge-ins, clients that vanish,
answers out of band, uploads and chats, against the real gateway with scripted models.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import httpx
from soaking import Soaked, soak
from watched_server import watched_server

SECONDS = 3600.0
BETWEEN = 60.0  # seconds between two lines of the table
UNDERRUNS = "aqaa_underruns_total"


class Table:
    """Prints a line for a minute."""

    def __init__(self) -> None:
        self._next = 0.0
        print("   done  sessions  busy ms  held ms  MiB    threads  files  tasks")

    def __call__(self, soaked: Soaked) -> None:
        """After a round."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + BETWEEN
        now = soaked.rounds[-1]
        (busy, _), (held, _) = now.busy[0], now.held[0]
        print(
            f"{soaked.done.total():7}  {now.sessions:8}  {busy:7.1f}  {held:7.1f}"
            f"  {now.rss / 2**20:5.1f}  {now.threads:7}  {now.files:5}  {now.tasks:5}",
            flush=True,
        )


async def run(seconds: float) -> tuple[Soaked, str]:
    """Soak; also the server's line about underruns."""
    async with watched_server() as server:
        soaked = await soak(server, seconds, Table())
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"{server.http}/metrics")).text
    return soaked, next(line for line in metrics.splitlines() if line.startswith(UNDERRUNS))


def main() -> int:
    """Run, tell, and return the exit code."""
    soaked, underruns = asyncio.run(run(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS))
    print(dict(soaked.done), underruns)
    wrong = soaked.wrong + [f"kept: {what}" for what in soaked.kept()]
    if float(underruns.split()[-1]):
        wrong.append(underruns)
    print("\n".join(f"WRONG: {what}" for what in wrong) or "nothing went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
