"""Work that asks a network for results without knowing where or with whom it computes.

A step-by-step job is a generator: it computes what is cheap itself, yields a request for what a
network computes, and is sent the reply. Whoever drives it decides when that is, and which requests
of other sessions share the call. `run_together` is the simplest driver: in the caller's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

Request = TypeVar("Request")
Reply = TypeVar("Reply")
Result = TypeVar("Result")

Steps = Generator[Request, Reply, Result]
Network = Callable[[Sequence[Request]], Sequence[Reply]]


def run_alone(steps: Steps[Request, Reply, Result], network: Network[Request, Reply]) -> Result:
    """The result of `steps`, each request a call of its own."""
    return run_together([steps], network)[0]


def run_together(
    jobs: Sequence[Steps[Request, Reply, Result]], network: Network[Request, Reply]
) -> list[Result]:
    """The results of `jobs`: what they ask for at the same time is computed in one call.

    Raises whatever the network or a job raises, after closing all jobs.
    """
    results: dict[int, Result] = {}
    asking: dict[int, Request] = {}
    try:
        for i, job in enumerate(jobs):
            try:
                asking[i] = next(job)
            except StopIteration as end:
                results[i] = end.value
        while asking:
            replies = dict(zip(asking, network(list(asking.values())), strict=True))
            asking = {}
            for i, reply in replies.items():
                try:
                    asking[i] = jobs[i].send(reply)
                except StopIteration as end:
                    results[i] = end.value
    except BaseException:
        for job in jobs:
            job.close()
        raise
    return [results[i] for i in range(len(jobs))]
