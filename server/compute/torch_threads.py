"""How many threads torch uses for one operation: a number of each thread that calls it."""

from __future__ import annotations


def set_torch_threads(threads: int) -> None:
    """Set the number for the calling thread, whatever other threads set later.

    torch takes a thread's number from a process-wide default at the thread's first operation, and
    `set_num_threads` sets both. Asking for the number makes it the first operation's: what another
    thread sets from then on (the embedded engine's set 1) is the default of new threads only.
    """
    import torch  # late: the executor's room imports without torch

    torch.get_num_threads()
    torch.set_num_threads(threads)
