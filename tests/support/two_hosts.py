"""Two hosts on this machine: network namespaces with a cable between them, and one from here.

It needs root. What runs in them listens on no interface of this machine.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from shutil import which
from typing import Final, Self

import psutil

CABLE: Final = "cable"  # the interface that each host has to the other

_numbers = itertools.count(os.getpid())  # tests in other processes have others


def can_be_made() -> bool:
    """Whether this machine and user allow it."""
    return os.geteuid() == 0 and which("ip") is not None


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
        namespace: its name.
        address: on the cable.
    """

    namespace: str
    address: str

    @property
    def inside(self) -> list[str]:
        """What begins the command line of a program on it."""
        return ["ip", "netns", "exec", self.namespace]

    def processes(self) -> list[psutil.Process]:
        """All that run on it."""
        found = []
        for number in _ip("netns", "pids", self.namespace).split():
            with suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(number)))
        return found

    def clear(self) -> None:
        """Nothing runs on it any more."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def environment(self) -> dict[str, str]:
        """What vLLM must be told of a host that is one of several."""
        return {"VLLM_HOST_IP": self.address, "GLOO_SOCKET_IFNAME": CABLE}


class TwoHosts:
    """`with` makes them and takes them down; the first can be reached from here."""

    def __init__(self) -> None:
        number = next(_numbers) % 250
        name = f"aqaa{os.getpid()}h{number}"
        self.first = Host(f"{name}a", f"10.214.{number}.1")
        self.second = Host(f"{name}b", f"10.214.{number}.2")
        self.near = f"10.215.{number}.1"  # of the first, from here
        self._here = f"10.215.{number}.2"
        self._interface = name[-15:]

    def __enter__(self) -> Self:
        one, two = self.first.namespace, self.second.namespace
        for name in (one, two):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        cable = ("link", "add", CABLE, "netns", one, "type", "veth", "peer", "name", CABLE)
        _ip(*cable, "netns", two)
        _ip("link", "add", self._interface, "type", "veth", "peer", "name", "near", "netns", one)
        for inside, address, interface in (
            (["-n", one], self.first.address, CABLE),
            (["-n", two], self.second.address, CABLE),
            (["-n", one], self.near, "near"),
            ([], self._here, self._interface),
        ):
            _ip(*inside, "address", "add", f"{address}/24", "dev", interface)
            _ip(*inside, "link", "set", interface, "up")
        return self

    def cut(self, whether: bool) -> None:
        """Pull the cable between them out, or put it in again."""
        _ip("-n", self.second.namespace, "link", "set", CABLE, "down" if whether else "up")

    def __exit__(self, *_: object) -> None:
        for host in (self.first, self.second):
            host.clear()
            _ip("netns", "delete", host.namespace)


def _ip(*arguments: str) -> str:
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
