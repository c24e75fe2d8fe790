"""How many processor cores this process may use: its affinity and its control group's share."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # version 2; in a container this is the container's own group


def available_cores(cgroup: Path = CGROUP) -> int:
    """Whole cores, at least one. `os.cpu_count` counts the machine's, also in a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _cpu_quota(cgroup))))


def _cpu_quota(cgroup: Path) -> float:
    """Cores that the control group grants; infinite where it sets no bound."""
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf
