"""Calls of a network as CUDA graphs: recorded once for each shape, then replayed in one launch.

Without graphs, a chunk of the published vocoder is some 11,000 kernel launches, and launching costs
more time than computing. A graph needs the same shapes in every call: `ChunkSynthesiser` pads its
batches to few. Recording has not been run on a GPU yet. On a CPU a runner calls its function, on
the same padded batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WARM_UP_CALLS = 3  # before a recording, as PyTorch's documentation has it: libraries set up

Shape = tuple[tuple[torch.Size, torch.dtype], ...]


@dataclass(frozen=True, eq=False)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class GraphRunner:
    """A function of tensors to a tensor; on CUDA, one graph for each shape of its inputs.

    The function must not read a tensor's values on the CPU, nor make tensors there. Calls from
    several threads take turns: a graph has one place for its inputs.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._recorded: dict[Shape, _Recorded] = {}
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """The function's result, in memory of its own. With a None among its inputs: no graph."""
        tensors = [tensor for tensor in inputs if tensor is not None]
        if len(tensors) < len(inputs) or not tensors[0].is_cuda:
            return self._function(*inputs)
        shape = tuple((tensor.shape, tensor.dtype) for tensor in tensors)
        with self._lock:
            recorded = self._recorded.get(shape)
            if recorded is None:
                recorded = self._recorded[shape] = self._record(tensors)
            for place, tensor in zip(recorded.inputs, tensors, strict=True):
                place.copy_(tensor)
            recorded.graph.replay()
            return recorded.output.clone()

    def _record(self, inputs: Sequence[Tensor]) -> _Recorded:
        places = [tensor.clone() for tensor in inputs]
        aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_CALLS):
                self._function(*places)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on launching, and allocating, while this one records.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = self._function(*places)
        return _Recorded(graph, places, output)
