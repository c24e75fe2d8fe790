"""Processes by what they call themselves. Others come and go while one looks."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import psutil


def called(name: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of `processes` that run and have `name` in their command line."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            line = " ".join(process.cmdline())
            if name in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
