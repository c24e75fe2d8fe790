"""Files in the layout of `speech_tokenizer_v1.onnx`, of any size, for tests and benchmarks.

They hold the nodes by which the published file's weights are found, and the weights: what
`aqaa.tokenizers.onnx_weights` reads. They are not graphs that could be run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

MEL_BINS = 128
CODEBOOK = "/quantizer/rq/model/layers.0/_codebook/Pow_1"

Weights = dict[str, NDArray[np.generic]]


def write_random(
    path: Path,
    *,
    width: int,
    heads: int,
    blocks: int,
    codes: int = 4096,
    positions: int = 1500,
    mel_bins: int = MEL_BINS,
    local: bool = False,
) -> Path:
    """Random weights of the published architecture.

    With `local`, a token depends on its own four frames and its position alone: the attention's
    output is zero, and the convolutions do not look back (nor can they, by their strides, ahead).
    """
    rng = np.random.default_rng(7)

    def draw(*shape: int) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    weights: Weights = {"encoders.positional_embedding": draw(positions, width) * 30}
    for name, inputs in (("conv1", mel_bins), ("conv2", width)):
        kernel = (rng.standard_normal((width, inputs, 3)) / np.sqrt(3 * inputs)).astype(np.float32)
        if local:
            kernel[:, :, 0] = 0
        weights[f"encoders.{name}.weight"] = kernel
        weights[f"encoders.{name}.bias"] = draw(width)
    nodes = []
    for i in range(blocks):
        nodes += _block(f"/blocks.{i}", weights, draw, width, heads, local)
    weights["codebook"] = draw(width, codes)
    nodes.append(helper.make_node("Pow", ["codebook", "two"], ["squares"], CODEBOOK))
    weights["two"] = np.array(2.0, np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "speech_tokenizer_v1",
        [
            value("feats", TensorProto.FLOAT, [1, mel_bins, "T"]),
            value("feats_length", TensorProto.INT32, [1]),
        ],
        [value("indices", TensorProto.INT32, [1, "N"])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)]), path)
    return path


def write_local(path: Path, *, positions: int = 1500, mel_bins: int = MEL_BINS) -> Path:
    """A small tokenizer whose tokens see nothing beyond their own frames and position."""
    return write_random(
        path, width=64, heads=2, blocks=1, positions=positions, mel_bins=mel_bins, local=True
    )


def _block(
    name: str, weights: Weights, draw: object, width: int, heads: int, local: bool
) -> list[NodeProto]:
    assert callable(draw)
    nodes: list[NodeProto] = []

    def node(kind: str, at: str, array: NDArray[np.generic]) -> None:
        weights[f"{at}.weight"] = array
        nodes.append(helper.make_node(kind, ["x", f"{at}.weight"], [at], at))

    for norm in ("attn_ln", "mlp_ln"):
        node("Mul", f"{name}/{norm}/Mul", np.ones(width, np.float32))
        node("Add", f"{name}/{norm}/Add_1", draw(width))
    node("Div", f"{name}/attn/Div", np.array(heads, np.int64))
    shapes = {f"attn/{part}": (width, width) for part in ("query", "key", "value", "out")}
    shapes |= {"mlp/mlp.0": (width, 4 * width), "mlp/mlp.2": (4 * width, width)}
    for part, shape in shapes.items():
        silent = local and part == "attn/out"
        node("MatMul", f"{name}/{part}/MatMul", draw(*shape) * (not silent))
        if part != "attn/key":
            node("Add", f"{name}/{part}/Add", draw(shape[1]) * (not silent))
    return nodes
