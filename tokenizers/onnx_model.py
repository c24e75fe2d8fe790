"""The published `speech_tokenizer_v1.onnx`, given one more input: where its window begins.

The network adds an absolute position to each 25 Hz frame and always starts at 0. To run it on a
window of a stream, its table of positions is shifted by an input of ours; the rest of the graph is
left as it is, and position 0 is the published network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper

from aqaa.models.bundle import SEMANTIC_SEGMENT_SECONDS, SEMANTIC_TOKEN_MS
from aqaa.models.errors import BundleError
from aqaa.models.groups import SEMANTIC_CODES
from aqaa.models.weights import require_file
from aqaa.tokenizers.features import MEL_BINS
from aqaa.tokenizers.stream import Codes, Samples

_POSITIONS = "encoders.positional_embedding"  # the initializer's name in the published file
_TABLE = "aqaa.positions"
_START = "aqaa.start"
_SEGMENT_TOKENS = SEMANTIC_SEGMENT_SECONDS * 1000 // SEMANTIC_TOKEN_MS
_WHAT = "the semantic tokenizer"


class SemanticModel:
    """An onnxruntime session; safe to share between threads."""

    def __init__(self, session: ort.InferenceSession, parameters: int) -> None:
        self._session = session
        self._mel, self._length, self._start = (i.name for i in session.get_inputs())
        self.parameters = parameters

    @classmethod
    def load(cls, path: Path, device: str = "cpu", threads: int = 1) -> SemanticModel:
        """Read the file; "cuda" needs onnxruntime-gpu, `threads` are CPU threads of one call.

        Raises:
            BundleError: the file is missing, damaged or of other inputs; the message names it.
        """
        require_file(path, _WHAT)
        try:
            model = onnx.load(path)
        except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
            raise BundleError(f"{_WHAT} is not a readable ONNX file: {path}: {error}") from error
        _check_inputs(model, path)
        parameters = sum(int(np.prod(t.dims)) for t in model.graph.initializer)
        _shift_positions(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            providers.insert(0, "CUDAExecutionProvider")
        try:
            session = ort.InferenceSession(model.SerializeToString(), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise BundleError(f"{_WHAT} cannot be run: {path}: {error}") from error
        return cls(session, parameters)

    def run(self, mel: Samples, start: int) -> Codes:
        """Codes `[ceil(ceil(t / 2) / 2)]` of log-mel `[128, t]` that begins at token `start`."""
        codes: Codes = self._session.run(
            None,
            {
                self._mel: mel[None],
                self._length: np.array([mel.shape[1]], np.int32),
                self._start: np.array([start], np.int64),
            },
        )[0].reshape(-1)
        if codes.size and not 0 <= codes.min() <= codes.max() < SEMANTIC_CODES:
            raise BundleError(f"{_WHAT} gives codes beyond {SEMANTIC_CODES}: another model's file?")
        return codes.astype(np.int32)


def _check_inputs(model: ModelProto, path: Path) -> None:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    shown = ", ".join(
        f"{v.name} {TensorProto.DataType.Name(v.type.tensor_type.elem_type).lower()}"
        f"{[d.dim_value or d.dim_param or '?' for d in v.type.tensor_type.shape.dim]}"
        for v in inputs
    )
    kinds = [value.type.tensor_type.elem_type for value in inputs]
    if kinds != [TensorProto.FLOAT, TensorProto.INT32]:
        raise BundleError(
            f"{path} takes ({shown}); {_WHAT} takes log-mel float [1, {MEL_BINS}, T] and its length"
            " int32 [1]: point the bundle at CosyVoice-1.0's speech_tokenizer_v1.onnx"
        )
    bins = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim][1:2]
    if bins not in ([MEL_BINS], [0]):  # 0: not fixed in the file
        raise BundleError(f"{path} takes ({shown}); {_WHAT} takes {MEL_BINS} mel bins")
    table = next((t for t in graph.initializer if t.name == _POSITIONS), None)
    if table is None or table.dims[0] < _SEGMENT_TOKENS:
        raise BundleError(
            f"{path} has no table `{_POSITIONS}` of at least {_SEGMENT_TOKENS} rows: "
            "not a speech_tokenizer_v1.onnx"
        )


def _shift_positions(model: ModelProto) -> None:
    """Feed whatever reads the table of positions with the table from row `_START` on."""
    graph = model.graph
    table = next(t for t in graph.initializer if t.name == _POSITIONS)
    table.name = _TABLE
    for value in [value for value in graph.input if value.name == _POSITIONS]:
        graph.input.remove(value)  # old exporters list weights among the inputs
    graph.initializer.extend(
        [
            helper.make_tensor("aqaa.end", TensorProto.INT64, [1], [table.dims[0]]),
            helper.make_tensor("aqaa.axis", TensorProto.INT64, [1], [0]),
        ]
    )
    graph.input.append(helper.make_tensor_value_info(_START, TensorProto.INT64, [1]))
    shift = helper.make_node(
        "Slice", [_TABLE, _START, "aqaa.end", "aqaa.axis"], [_POSITIONS], name="aqaa.shift"
    )
    graph.node.insert(0, shift)
