"""The real gateway over paced parts, in a process of its own: see `watched_server`.

Run as `paced_server.py SESSIONS`, the most that are admitted.
"""

from __future__ import annotations

import asyncio
import sys

from loop_watch import LoopWatch
from paced_parts import PacedEngine, paced_parts
from scripted_server import serving_parts
from watched_server import Unkept, serve_watched


async def main(sessions: int) -> None:
    """Serve until the input ends."""
    engine = PacedEngine(warmed=Unkept(), released=Unkept())
    parts = paced_parts(engine)
    most = sessions + 10
    await serve_watched(
        serving_parts(
            parts,
            engine,
            strict=False,
            max_sessions=sessions,
            max_connections=most,
            drain_seconds=1,
        ),
        LoopWatch.by_the_wall(),
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
