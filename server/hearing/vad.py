"""Voice activity detection: Silero's network on onnxruntime, in frames of 32 ms.

The network is the file in the `silero-vad` wheel. The package itself is never imported: it would
import torchaudio.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqaa.models.errors import MissingDependencyError

FRAME_SAMPLES = 512  # samples at 16 kHz, the only frame that Silero VAD 5 and 6 take
CONTEXT_SAMPLES = 64  # of the frame before, which the network sees again (as in Silero's wrapper)
STATE_SHAPE = (2, 1, 128)  # the recurrent state of the ONNX graph


class VadModel:
    """The network; shared by all sessions."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @classmethod
    def load(cls) -> VadModel:
        """Open the model in the wheel.

        Raises:
            MissingDependencyError: the wheel is not installed.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a frame takes 0.1 ms: a second thread only costs
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        path = _model_path()
        return cls(onnxruntime.InferenceSession(str(path), options, providers=providers))

    def stream(self) -> VadStream:
        """A stream with a state of its own."""
        return VadStream(self)

    def run(
        self, frame: NDArray[np.float32], state: NDArray[np.float32]
    ) -> tuple[float, NDArray[np.float32]]:
        """Probability of speech in `frame` [1, 64 + 512], and the state [2, 1, 128] after it."""
        rate = np.array(16_000, dtype=np.int64)
        inputs = {"input": frame, "state": state, "sr": rate}
        probability, after = self._session.run(None, inputs)
        return float(probability[0, 0]), after


class VadStream:
    """One session's frames, in order."""

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._window = np.zeros((1, CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)

    def push(self, frame: NDArray[np.float32]) -> float:
        """Probability of speech in the next `frame`, float32 [512] at 16 kHz."""
        self._window[0, :CONTEXT_SAMPLES] = self._window[0, -CONTEXT_SAMPLES:]
        self._window[0, CONTEXT_SAMPLES:] = frame
        probability, self._state = self._model.run(self._window, self._state)
        return probability


def _model_path() -> Path:
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "voice activity detection needs Silero's model: pip install silero-vad"
        )
    return Path(spec.origin).parent / "data" / "silero_vad.onnx"
