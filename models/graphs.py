"""Calls of a network as CUDA graphs: recorded once for each shape, then replayed in one launch.

Without graphs, a chunk of the published vocoder is some 11,000 kernel launches, and launching costs
more time than computing. A graph needs the same shapes in every call: who runs one pads its batches
to few (`filled_up`). On a CPU a runner calls its function, on the same padded batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Row = TypeVar("Row")
Shape = tuple[tuple[torch.Size, torch.dtype], ...]


def filled_up(rows: Sequence[Row]) -> list[Row]:
    """Rows in a number that graphs are recorded for: a power of two, the last repeated."""
    return [*rows, *[rows[-1]] * ((1 << (len(rows) - 1).bit_length()) - len(rows))]


def batch_sizes(most: int) -> list[int]:
    """The numbers of rows that occur in batches of at most `most`."""
    return [1 << power for power in range((most - 1).bit_length() + 1)]


@dataclass(frozen=True, eq=False)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: tuple[Tensor, ...]


class GraphRunner:
    """A function of tensors to tensors; on CUDA, one graph for each shape of its inputs.

    The function must not read a tensor's values on the CPU, nor make tensors there. Calls from
    several threads take turns: a graph has one place for its inputs.
    """

    def __init__(self, function: Callable[..., tuple[Tensor, ...]]) -> None:
        self._function = function
        self._recorded: dict[Shape, _Recorded] = {}
        self._lock = threading.Lock()
        self._sealed = False

    def __call__(self, *inputs: Tensor | None) -> tuple[Tensor, ...]:
        """The function's results, in memory of their own. With a None among its inputs: no graph.

        After `seal` neither in a shape that is new.
        """
        tensors = [tensor for tensor in inputs if tensor is not None]
        if len(tensors) < len(inputs) or not tensors[0].is_cuda:
            return self._function(*inputs)
        shape = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        with self._lock:
            recorded = self._recorded.get(shape)
            if recorded is None:
                if self._sealed:
                    return self._function(*inputs)
                recorded = self._recorded[shape] = self._record(tensors)
            for place, tensor in zip(recorded.inputs, tensors, strict=True):
                place.copy_(tensor)
            recorded.graph.replay()
            return tuple(output.clone() for output in recorded.outputs)

    def seal(self) -> None:
        """Record no more: whoever is served does not wait for it."""
        self._sealed = True

    def _record(self, inputs: Sequence[Tensor]) -> _Recorded:
        places = [tensor.clone() for tensor in inputs]
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set up what they need before a recording
            self._function(*places)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on launching, and allocating, while this one records.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self._function(*places)
        return _Recorded(graph, places, outputs)
