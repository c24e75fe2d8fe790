"""A wire between this process and a network namespace: delay, loss and cuts, in user space.

The kernels of test machines often lack netem, so a thread carries the packets between two TUN
devices. It needs root and /dev/net/tun.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from pathlib import Path
from shutil import which
from typing import Self

_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_LOOK_SECONDS = 0.005  # between two looks at what a test has set

_numbers = itertools.count(os.getpid())  # tests in other processes have others


def can_be_made() -> bool:
    """Whether this machine and user allow it."""
    return os.geteuid() == 0 and Path("/dev/net/tun").exists() and which("ip") is not None


class Wire:
    """Two hosts, 10.213.n.1 (here) and 10.213.n.2 (in `namespace`). `with` takes it down."""

    def __init__(self) -> None:
        number = next(_numbers) % 250
        self.namespace = f"aqaa{os.getpid()}x{number}"
        self.near, self.far = f"10.213.{number}.1", f"10.213.{number}.2"
        self.delay = 0.0  # seconds, each way
        self.loss = 0.0  # share of the packets, each way
        self.cut = False
        self._draw = random.Random(1)  # the same losses in every run
        self._over = threading.Event()

    @property
    def inside(self) -> list[str]:
        """What begins the command line of a program in the namespace."""
        return ["ip", "netns", "exec", self.namespace]

    def __enter__(self) -> Self:
        _run("ip", "netns", "add", self.namespace)
        near, far = _tun(f"{self.namespace}n"[-15:]), _tun(f"{self.namespace}f"[-15:])
        for name, address, inside in (
            (near[1], self.near, []),
            (far[1], self.far, ["-n", self.namespace]),
        ):
            if inside:
                _run("ip", "link", "set", name, "netns", self.namespace)
            _run("ip", *inside, "address", "add", f"{address}/24", "dev", name)
            _run("ip", *inside, "link", "set", name, "up")
        _run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        self._ends = near[0], far[0]
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for end in self._ends:
            os.close(end)
        _run("ip", "netns", "delete", self.namespace)

    def _carry(self) -> None:
        order = itertools.count()
        under_way: list[tuple[float, int, int, bytes]] = []
        other = dict(zip(self._ends, reversed(self._ends), strict=True))
        while not self._over.is_set():
            now = time.monotonic()
            while under_way and under_way[0][0] <= now:
                _, _, end, packet = heapq.heappop(under_way)
                if not self.cut:
                    os.write(end, packet)
            wait = min(_LOOK_SECONDS, under_way[0][0] - now) if under_way else _LOOK_SECONDS
            for end in select.select(self._ends, [], [], max(0.0, wait))[0]:
                packet = os.read(end, 65536)
                if not self.cut and self._draw.random() >= self.loss:
                    at = time.monotonic() + self.delay
                    heapq.heappush(under_way, (at, next(order), other[end], packet))


def _tun(name: str) -> tuple[int, str]:
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN_NO_PI))
    return descriptor, name


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
