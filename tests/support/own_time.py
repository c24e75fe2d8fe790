"""A clock for bounds on a machine whose few cores vLLM keeps busy, spinning."""

from __future__ import annotations

import time
from pathlib import Path


def own_time() -> float:
    """Seconds that stand still while this thread waits for a CPU, which others' work takes."""
    waited = int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return time.monotonic() - waited
