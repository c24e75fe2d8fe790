"""A clock for bounds on a machine whose few cores vLLM keeps busy, spinning."""

from __future__ import annotations

import os
import threading
import time

_files = threading.local()  # each thread's, open: opening one takes a millisecond on some machines


def own_time() -> float:
    """Seconds that stand still while this thread waits for a CPU, which others' work takes."""
    if not hasattr(_files, "schedstat"):
        _files.schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    waited = int(os.pread(_files.schedstat, 100, 0).split()[1]) / 1e9
    return time.monotonic() - waited
