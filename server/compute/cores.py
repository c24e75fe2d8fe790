"""How many processor cores this process may use: its affinity and its control group's share."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")  # in a container this is the container's own group


def available_cores(cgroup: Path = CGROUP) -> int:
    """Whole cores, at least one. `os.cpu_count` counts the machine's, also in a container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, math.ceil(min(cores or 1, _cpu_quota(cgroup))))


def _cpu_quota(cgroup: Path) -> float:
    """Cores that the control group grants; infinite where it sets no bound."""
    try:
        quota, period = _quota_and_period(cgroup)
        bounded = quota not in ("max", "-1")
        return int(quota) / int(period) if bounded else math.inf
    except (OSError, ValueError):
        return math.inf


def _quota_and_period(cgroup: Path) -> tuple[str, str]:
    """As the kernel has them: in one file of version 2, in two of version 1."""
    if (both := cgroup / "cpu.max").exists():
        quota, period = both.read_text(encoding="ascii").split()
        return quota, period
    folder = cgroup / "cpu"
    quota, period = (
        (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
        for name in ("quota", "period")
    )
    return quota, period
