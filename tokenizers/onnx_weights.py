"""Reads the weights and dimensions of the published `speech_tokenizer_v1.onnx`.

An exporter has named most of its tensors by number, so a weight is found by the node that uses it:
`/blocks.0/attn/query/MatMul` multiplies by the query's. Matrices are stored `[inputs, outputs]`.
Nothing of the graph is run.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor

from aqaa.models.errors import BundleError
from aqaa.models.weights import require_file
from aqaa.tokenizers.features import MEL_BINS

WHAT = "the semantic tokenizer"
_POSITIONS = "encoders.positional_embedding"  # an initializer's name in the published file
_CODEBOOK = "/quantizer/rq/model/layers.0/_codebook/Pow_1"  # squares the codebook


class PublishedGraph:
    """An opened file: tensors by the nodes that use them.

    Raises:
        BundleError: the file is missing, damaged or of other inputs; the message names it.
    """

    def __init__(self, path: Path) -> None:
        require_file(path, WHAT)
        self.path = path
        try:
            model = onnx.load(path)
        except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
            raise BundleError(f"{WHAT} is not a readable ONNX file: {path}: {error}") from error
        self._nodes: dict[str, NodeProto] = {node.name: node for node in model.graph.node}
        self._values: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant":
                self._values[node.output[0]] = node.attribute[0].t
        _check_inputs(model, path)

    @property
    def blocks(self) -> int:
        """Transformer blocks."""
        count = 0
        while f"/blocks.{count}/attn/query/MatMul" in self._nodes:
            count += 1
        return count

    @property
    def heads(self) -> int:
        """Attention heads: what the query's width is divided by, or (nano) is reshaped into."""
        published = self._constant("/blocks.0/attn/Div")
        if published is not None:
            return int(published)
        shape = self._constant("/blocks.0/attn/query/Reshape")
        if shape is None or shape.size != 4:  # [batch, tokens, heads, width of a head]
            raise self._other("does not say how many attention heads it has")
        return int(shape[2])

    @property
    def causal_blocks(self) -> tuple[int, int] | None:
        """nano's attention: tokens in a block, and how many blocks back a token sees.

        None as published, where every token sees every other.
        """
        size, back = self._constant("/mask/Div"), self._constant("/mask/Greater")
        return None if size is None or back is None else (int(size), int(back))

    @property
    def positions(self) -> Tensor:
        """The table of positions, float32 [1500, D]."""
        return self.named(_POSITIONS)

    @property
    def codebook(self) -> Tensor:
        """The codes' centres, float32 [D, 4096]."""
        return self.used_by(_CODEBOOK)

    def named(self, name: str) -> Tensor:
        """The weight of this name, float32."""
        if name not in self._values:
            raise self._other(f"has no tensor `{name}`")
        return self._tensor(self._values[name])

    def used_by(self, node: str) -> Tensor:
        """The one weight among the inputs of the node of this name, float32."""
        found = self._stored_inputs(node)
        weights = [value for value in found if value.dims and max(value.dims) > 1]
        if len(weights) != 1:
            raise self._other(f"has no node `{node}` with one weight")
        return self._tensor(weights[0])

    def has(self, node: str) -> bool:
        """Whether there is a node of this name."""
        return node in self._nodes

    def _stored_inputs(self, node: str) -> list[TensorProto]:
        found = self._nodes.get(node)
        names = found.input if found is not None else ()
        return [self._values[name] for name in names if name in self._values]

    def _constant(self, node: str) -> NDArray[np.generic] | None:
        """The stored input of a node that has exactly one."""
        found = self._stored_inputs(node)
        return np.asarray(numpy_helper.to_array(found[0])).squeeze() if len(found) == 1 else None

    def _tensor(self, value: TensorProto) -> Tensor:
        return torch.from_numpy(np.array(numpy_helper.to_array(value), np.float32))

    def _other(self, complaint: str) -> BundleError:
        return BundleError(
            f"{self.path} {complaint}: it is not CosyVoice-1.0's speech_tokenizer_v1.onnx"
        )


def _check_inputs(model: ModelProto, path: Path) -> None:
    """The file's inputs are those of the published tokenizer."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    shown = ", ".join(
        f"{v.name} {TensorProto.DataType.Name(v.type.tensor_type.elem_type).lower()}"
        f"{[d.dim_value or d.dim_param or '?' for d in v.type.tensor_type.shape.dim]}"
        for v in inputs
    )
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    if kinds != [TensorProto.FLOAT, TensorProto.INT32]:
        raise BundleError(
            f"{path} takes ({shown}); {WHAT} takes log-mel float [1, {MEL_BINS}, T] and its length"
            " int32 [1]: point the bundle at CosyVoice-1.0's speech_tokenizer_v1.onnx"
        )
    bins = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][1:2]
    if bins not in ([MEL_BINS], [0]):  # 0: not fixed in the file
        raise BundleError(f"{path} takes ({shown}); {WHAT} takes {MEL_BINS} mel bins")
