"""Small ONNX graphs in the interface of `speech_tokenizer_v1.onnx`, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 64


def write_local(path: Path, *, positions: int = 1500, mel_bins: int = 128) -> Path:
    """A tokenizer without attention: a token depends on its four frames and its position alone.

    Conv(k4 s4) over padded frames + position table, then the largest of 64 channels.
    """
    rng = np.random.default_rng(7)
    weights = {
        "conv.weight": rng.standard_normal((WIDTH, mel_bins, 4)).astype(np.float32),
        "encoders.positional_embedding": 3 * rng.standard_normal((positions, WIDTH)).astype("f4"),
        "zero": np.array([0], np.int64),
        "axis": np.array([0], np.int64),
        "three": np.array(3, np.int64),
        "four": np.array(4, np.int64),
        "no_pads": np.zeros(5, np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["feats_length"], ["length"], to=TensorProto.INT64),
        node("Add", ["length", "three"], ["rounded"]),
        node("Div", ["rounded", "four"], ["tokens"]),
        node("Mul", ["tokens", "four"], ["whole"]),
        node("Sub", ["whole", "length"], ["missing"]),
        node("Concat", ["no_pads", "missing"], ["pads"], axis=0),
        node("Pad", ["feats", "pads"], ["padded"]),
        node("Conv", ["padded", "conv.weight"], ["hidden"], strides=[4]),
        node("Slice", ["encoders.positional_embedding", "zero", "tokens", "axis"], ["table"]),
        node("Transpose", ["table"], ["columns"], perm=[1, 0]),
        node("Add", ["hidden", "columns"], ["placed"]),
        node("ArgMax", ["placed"], ["best"], axis=1, keepdims=0),
        node("Cast", ["best"], ["indices"], to=TensorProto.INT32),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "local",
        [
            value("feats", TensorProto.FLOAT, [1, mel_bins, "T"]),
            value("feats_length", TensorProto.INT32, [1]),
        ],
        [value("indices", TensorProto.INT32, [1, "N"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
