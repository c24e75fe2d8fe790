"""Writes the encoder as `speech_tokenizer_v1.onnx`, node by node, with the published names.

Written by hand rather than traced: the graph is small, its names are read by other tools, and the
block mask must be computed for any length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from aqaa.recipe.semantic.network import (
    BLOCK,
    BLOCKS_BACK,
    HEADS,
    MELS,
    WIDTH,
    Block,
    SemanticEncoder,
)

OPSET = 14  # the published file's
HIDDEN = -1e10  # the published attention's "not seen"


class _Graph:
    """Nodes and constants, in order; every node is named as its output."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, value: Tensor | NDArray[np.generic]) -> str:
        array = value.detach().numpy() if isinstance(value, Tensor) else value
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def number(self, value: object, kind: type[np.generic] = np.int64) -> str:
        name = f"constant_{len(self.weights)}"
        return self.weight(name, np.asarray(value, kind))

    def add(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        out = f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name, **attributes))
        return out

    def gelu(self, name: str, x: str) -> str:
        half, root = self.number(0.5, np.float32), self.number(2**0.5, np.float32)
        erf = self.add("Erf", f"{name}/Erf", self.add("Div", f"{name}/Div", x, root))
        one = self.add("Add", f"{name}/Add", erf, self.number(1.0, np.float32))
        return self.add("Mul", f"{name}/Mul_1", self.add("Mul", f"{name}/Mul", x, one), half)

    def norm(self, name: str, x: str, layer: nn.LayerNorm) -> str:
        apart = self.add(
            "Sub", f"{name}/Sub", x, self.add("ReduceMean", f"{name}/ReduceMean", x, axes=[-1])
        )
        square = self.add("Pow", f"{name}/Pow", apart, self.number(2.0, np.float32))
        spread = self.add("ReduceMean", f"{name}/ReduceMean_1", square, axes=[-1])
        spread = self.add("Add", f"{name}/Add", spread, self.number(layer.eps, np.float32))
        unit = self.add("Div", f"{name}/Div", apart, self.add("Sqrt", f"{name}/Sqrt", spread))
        scaled = self.add("Mul", f"{name}/Mul", unit, self.weight(f"{name}.weight", layer.weight))
        return self.add("Add", f"{name}/Add_1", scaled, self.weight(f"{name}.bias", layer.bias))

    def linear(self, name: str, x: str, layer: nn.Linear) -> str:
        out = self.add("MatMul", f"{name}/MatMul", x, self.weight(f"{name}.weight", layer.weight.T))
        bias: Tensor | None = layer.bias  # nn.Linear says Tensor, and has None where it has no bias
        if bias is None:
            return out
        return self.add("Add", f"{name}/Add", self.weight(f"{name}.bias", bias), out)


def build(encoder: SemanticEncoder) -> onnx.ModelProto:
    """The graph: `feats` float [1, 128, T], `feats_length` int32 [1] -> `indices` int32 [1, N]."""
    g = _Graph()
    table = g.weight("encoders.positional_embedding", encoder.positions)
    zero, one, two = g.number([0]), g.number([1]), g.number([2])
    length = g.add("Cast", "/encoders/Cast", "feats_length", to=TensorProto.INT64)
    x = g.add("Slice", "/encoders/Slice", "feats", zero, length, two)
    for name, conv in (("conv1", encoder.conv1), ("conv2", encoder.conv2)):
        weights = [g.weight(f"encoders.{name}.{k}", v) for k, v in conv.named_parameters()]
        shape = {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}
        x = g.gelu(
            f"/encoders/{name}", g.add("Conv", f"/encoders/{name}/Conv", x, *weights, **shape)
        )
    x = g.add("Transpose", "/encoders/Transpose", x, perm=[0, 2, 1])
    count = g.add("Gather", "/encoders/Gather", g.add("Shape", "/encoders/Shape", x), one, axis=0)
    x = g.add(
        "Add", "/encoders/Add", x, g.add("Slice", "/encoders/Slice_1", table, zero, count, zero)
    )
    mask = _mask(g, count, zero, one)
    for i, block in enumerate(b for b in encoder.blocks if isinstance(b, Block)):
        x = _block(g, f"/blocks.{i}", x, mask, block)
    return _finish(g, _quantise(g, x, encoder.codebook.embed))


def _mask(g: _Graph, count: str, zero: str, one: str) -> str:
    """[N, N]: 0 where the key's block is the query's or one of those before, else `HIDDEN`."""
    scalar = [
        g.add("Squeeze", f"/mask/Squeeze_{i}", v, zero) for i, v in enumerate((zero, count, one))
    ]
    block = g.add("Div", "/mask/Div", g.add("Range", "/mask/Range", *scalar), g.number(BLOCK))
    query = g.add("Unsqueeze", "/mask/Unsqueeze", block, one)
    behind = g.add("Sub", "/mask/Sub", query, g.add("Unsqueeze", "/mask/Unsqueeze_1", block, zero))
    early = g.add("Greater", "/mask/Greater", behind, g.number(BLOCKS_BACK))
    late = g.add("Less", "/mask/Less", behind, g.number(0))
    unseen = g.add("Cast", "/mask/Cast", g.add("Or", "/mask/Or", early, late), to=TensorProto.FLOAT)
    return g.add("Mul", "/mask/Mul", unseen, g.number(HIDDEN, np.float32))


def _block(g: _Graph, name: str, x: str, mask: str, block: Block) -> str:
    attn = block.attn
    y = g.norm(f"{name}/attn_ln", x, block.attn_ln)
    heads = g.number([0, -1, HEADS, WIDTH // HEADS])

    def split(part: str, perm: list[int]) -> str:
        made = g.linear(f"{name}/attn/{part}", y, getattr(attn, part))
        shaped = g.add("Reshape", f"{name}/attn/{part}/Reshape", made, heads)
        return g.add("Transpose", f"{name}/attn/{part}/Transpose", shaped, perm=perm)

    scale = g.number((WIDTH // HEADS) ** -0.25, np.float32)
    q = g.add("Mul", f"{name}/attn/Mul", split("query", [0, 2, 1, 3]), scale)
    k = g.add("Mul", f"{name}/attn/Mul_1", split("key", [0, 2, 3, 1]), scale)
    scores = g.add("Add", f"{name}/attn/Add", g.add("MatMul", f"{name}/attn/MatMul", q, k), mask)
    share = g.add("Softmax", f"{name}/attn/Softmax", scores, axis=-1)
    mixed = g.add("MatMul", f"{name}/attn/MatMul_1", share, split("value", [0, 2, 1, 3]))
    mixed = g.add("Transpose", f"{name}/attn/Transpose_3", mixed, perm=[0, 2, 1, 3])
    mixed = g.add("Reshape", f"{name}/attn/Reshape_3", mixed, g.number([0, 0, WIDTH]))
    x = g.add("Add", f"{name}/Add", x, g.linear(f"{name}/attn/out", mixed, attn.out))
    y = g.norm(f"{name}/mlp_ln", x, block.mlp_ln)
    widen, narrow = (part for part in block.mlp if isinstance(part, nn.Linear))
    y = g.gelu(f"{name}/mlp/mlp.1", g.linear(f"{name}/mlp/mlp.0", y, widen))
    return g.add("Add", f"{name}/Add_1", x, g.linear(f"{name}/mlp/mlp.2", y, narrow))


def _quantise(g: _Graph, x: str, codes: Tensor) -> str:
    """Unit length, then the code of the greatest -(|x|^2 - 2 x E + |E|^2); |x| is 1."""
    name = "/quantizer/rq/model/layers.0/_codebook"
    size = g.add("ReduceL2", f"{name}/ReduceL2", x, axes=[-1])
    size = g.add("Max", f"{name}/Max", size, g.number(1e-12, np.float32))
    unit = g.add("Div", f"{name}/Div", x, size)
    table = g.weight("codebook", codes.T)
    square = g.add("Pow", f"{name}/Pow_1", table, g.number(2.0, np.float32))
    norms = g.add("ReduceSum", f"{name}/ReduceSum_1", square, g.number([0]), keepdims=1)
    product = g.add("MatMul", f"{name}/MatMul", unit, table)
    product = g.add("Mul", f"{name}/Mul", product, g.number(2.0, np.float32))
    near = g.add("Sub", f"{name}/Sub", product, norms)
    return g.add("ArgMax", f"{name}/ArgMax", near, axis=-1, keepdims=0)


def _finish(g: _Graph, winners: str) -> onnx.ModelProto:
    g.nodes.append(helper.make_node("Cast", [winners], ["indices"], "/Cast", to=TensorProto.INT32))
    graph = helper.make_graph(
        g.nodes,
        "speech_tokenizer_v1",
        [
            helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, MELS, "T"]),
            helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
        ],
        [helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "N"])],
        g.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def export(encoder: SemanticEncoder, path: Path) -> None:
    """Write `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(build(encoder), path)
