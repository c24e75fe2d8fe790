"""Models as the executor sees them, and work as a sequence of calls to them.

Work is a generator: it computes what is cheap itself and yields a `Call` for what a model computes;
the call's result is sent back into it. Between two calls it waits in the executor's queue, where
more urgent work overtakes it and where calls of other sessions join it in one batch.

    def work(encoder: Model[Window, Codes], windows: list[Window]) -> Work[list[Codes]]:
        codes = []
        for window in windows:
            codes.append((yield from encoder.ask(window)))
        return codes
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")
T = TypeVar("T")


def one_shape(value: object) -> Hashable:
    """For models whose values all fit into one batch."""
    return None


def one_size(value: object) -> float:
    """For models whose values all take the same time."""
    return 1.0


@dataclass(frozen=True, eq=False)
class Model(Generic[Value, Result]):
    """A function of many values, and how it may be used.

    Attributes:
        name: for the metrics.
        run: the results of a batch of values, in their order. A result that is an exception is
            raised in the work that asked for it; one that `run` raises, in all of the batch.
        shape_of: values of equal shape may be in one batch.
        max_batch: values in one batch at most.
        size_of: how many times as long a value's call takes as the shortest.
        heavy: a call of wanted work takes so long (tens of milliseconds) that it must not have all
            threads.
        at_once: batches that run at the same time at most; None: as many as there are threads. On a
            GPU one is best: what comes meanwhile makes a larger batch, which takes hardly longer.
    """

    name: str
    run: Callable[[Sequence[Value]], Sequence[Result | Exception]]
    shape_of: Callable[[Value], Hashable] = one_shape
    max_batch: int = 1
    size_of: Callable[[Value], float] = one_size
    heavy: bool = False
    at_once: int | None = None

    def ask(self, value: Value) -> Work[Result]:
        """The step of some work that asks this model for the result of `value`."""
        result: Result = yield Call(self, value)
        return result


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """One value that waits for its model."""

    model: Model[Any, Any]
    value: Any


Work = Generator[Call, Any, T]


def work_of(function: Callable[[], T]) -> Work[T]:
    """A plain function as work of one step, without a model."""
    yield from ()
    return function()


def compute_alone(work: Work[T]) -> T:
    """The outcome of `work`, computed here and now, each call a batch of one."""
    result: Any = None
    while True:
        try:
            call = work.send(result)
        except StopIteration as end:
            outcome: T = end.value
            return outcome
        (result,) = call.model.run([call.value])
        if isinstance(result, Exception):
            raise result
