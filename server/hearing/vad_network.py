"""Silero's network for frames of many streams in one call.

The published file takes one stream's frames and convolves each frame alone, which costs up to
three times as much: a frame is four places wide. Here are its weights in a graph whose convolutions
are products of matrices, a row for each place of each frame. What comes of a frame does not depend
on what else is in the call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from aqaa.models.errors import MissingDependencyError

Array = NDArray[Any]

FRAME = 64 + 512  # samples: the context and the frame
HOP, PLACES = 128, 4  # of the windows in a frame, each of two hops, behind it its reflection
UNITS = 128  # of the recurrent layer
OPSET = 16


def many_streams(published: onnx.ModelProto) -> bytes:
    """The graph, serialised, with the weights of `silero_vad_16k_sequence.onnx`.

    It takes `frames` float32 [n, 576]; `rows` int64 [t, b], for each of b streams the numbers of
    its frames in order, then any; `lengths` int32 [b], how many they are; `hidden` and `cell`
    float32 [1, b, 128]. It gives the probabilities of speech float32 [t, b], and the next `hidden`
    and `cell`.

    Raises:
        MissingDependencyError: the published graph is another one.
    """
    weights = {one.name: numpy_helper.to_array(one) for one in published.graph.initializer}
    layers = {
        kind: [
            [weights[name] for name in node.input if name in weights]
            for node in published.graph.node
            if node.op_type == kind
        ]
        for kind in ("Conv", "LSTM")
    }
    try:
        (spectrum,), *encoder, (word, bias) = layers["Conv"]
        ((inward, across, biases),) = layers["LSTM"]
    except ValueError as error:
        raise MissingDependencyError(
            f"this silero-vad has another network ({error}): pip install 'silero-vad>=6.2.2,<7'"
        ) from None
    graph = _Graph()
    sound = graph.add("Pad", "frames", np.array([0, 0, 0, HOP // 2]), mode="reflect")
    hops = graph.add("Reshape", sound, np.array([-1, PLACES + 1, HOP]))
    windows = graph.add(
        "Concat", graph.places(hops, 0, PLACES), graph.places(hops, 1, PLACES), axis=2
    )
    waves = graph.add("MatMul", windows, spectrum[:, 0].T)  # cosines, then sines
    squares = graph.add("Reshape", graph.add("Mul", waves, waves), np.array([0, 0, 2, -1]))
    heard = graph.add("Sqrt", graph.add("ReduceSum", squares, np.array([2]), keepdims=0))
    places = PLACES
    for (weight, offset), stride in zip(encoder, (1, 2, 2, 1), strict=True):
        places = (places - 1) // stride + 1
        heard = graph.convolve(heard, weight, offset, stride, places)
    features = graph.add("Reshape", heard, np.array([-1, UNITS]))
    graph.nodes.append(
        helper.make_node(
            "LSTM",
            [
                graph.add("Gather", features, "rows"),
                *map(graph.constant, (inward, across, biases)),
                "lengths",
                "hidden",
                "cell",
            ],
            ["memory", "next_hidden", "next_cell"],
            hidden_size=UNITS,
        )
    )
    spoken = graph.add("MatMul", graph.add("Relu", "memory"), word[0])
    chance = graph.add("Sigmoid", graph.add("Add", spoken, bias))
    return graph.serialised(graph.add("Squeeze", chance, np.array([1, 3])))


class _Graph:
    """Grows node by node; values go by their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, value: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str | Array, **attributes: Any) -> str:
        """One more node of one output; returns that."""
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        output = f"value_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output

    def places(self, x: str, first: int, count: int, step: int = 1) -> str:
        """So many places of [n, places, channels], each so many steps behind the one before."""
        end = first + step * (count - 1) + 1
        bounds = (np.array([one]) for one in (first, end, 1, step))
        return self.add("Slice", x, *bounds)

    def convolve(self, x: str, weight: Array, bias: Array, stride: int, places: int) -> str:
        """A convolution over three places, zeros around them, and a rectifier: `x` [n, _, in] to
        [n, places, out] with `weight` [out, in, 3]."""
        padded = self.add("Pad", x, np.array([0, 1, 0, 0, 1, 0]))
        taps = [self.places(padded, tap, places, stride) for tap in range(3)]
        rows = self.add("Concat", *taps, axis=2)
        product = self.add("MatMul", rows, weight.transpose(2, 1, 0).reshape(-1, len(bias)))
        return self.add("Relu", self.add("Add", product, bias))

    def serialised(self, probabilities: str) -> bytes:
        """The whole model, with the names that `many_streams` tells."""
        self.nodes.append(helper.make_node("Identity", [probabilities], ["probabilities"]))
        value = helper.make_tensor_value_info
        state: list[str | int | None] = [1, "b", UNITS]
        graph = helper.make_graph(
            self.nodes,
            "silero",
            [
                value("frames", TensorProto.FLOAT, ["n", FRAME]),
                value("rows", TensorProto.INT64, ["t", "b"]),
                value("lengths", TensorProto.INT32, ["b"]),
                value("hidden", TensorProto.FLOAT, state),
                value("cell", TensorProto.FLOAT, state),
            ],
            [
                value("probabilities", TensorProto.FLOAT, ["t", "b"]),
                value("next_hidden", TensorProto.FLOAT, state),
                value("next_cell", TensorProto.FLOAT, state),
            ],
            self._constants,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
        )
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
