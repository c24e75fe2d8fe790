"""Voice activity detection: Silero's network on onnxruntime, in frames of 32 ms.

The network is the file in the `silero-vad` wheel. The package itself is never imported: it would
import torchaudio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from aqaa.models.errors import MissingDependencyError
from aqaa.server.compute.model import Model, Work
from aqaa.server.protocol.session_types import ServerVad

FRAME_SAMPLES = 512  # samples at 16 kHz, the only frame that Silero VAD 5 and 6 take
CONTEXT_SAMPLES = 64  # of the frame before, which the network sees again (as in Silero's wrapper)
STATE_SHAPE = (2, 128)  # the recurrent state of one stream
SAMPLE_RATE = np.array(16_000, np.int64)
SPEECH_PROBABILITY = ServerVad().threshold  # from here on somebody speaks in a frame
MAX_BATCH = 64  # frames; the time of a batch grows as its size from about eight on


@dataclass(frozen=True, eq=False)
class VadFrame:
    """A frame with its context, float32 [64 + 512], and the state [2, 128] before it."""

    samples: NDArray[np.float32]
    state: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VadSlice:
    """Frames of a recording, each with its context, float32 [n, 64 + 512], and the state [2, 128]
    before the first."""

    frames: NDArray[np.float32]
    state: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VadResult:
    """The probability of speech, of a slice the highest, and the state [2, 128] after it."""

    probability: float
    state: NDArray[np.float32]


class VadModel:
    """The network; shared by all sessions.

    Attributes:
        model: its frames, several sessions' in one batch; each gets what it gets alone.
        slices: pieces of recordings, of which the highest probability is told.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.model = Model[VadFrame, VadResult]("vad", self._run, max_batch=MAX_BATCH)
        self.slices = Model[VadSlice, VadResult]("vad_slice", self._run_slices)

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

    def _run(self, frames: Sequence[VadFrame]) -> list[VadResult]:
        inputs = {
            "input": np.stack([frame.samples for frame in frames]),
            "state": np.stack([frame.state for frame in frames], axis=1),
            "sr": SAMPLE_RATE,
        }
        probabilities, states = self._session.run(None, inputs)
        return [
            VadResult(float(probabilities[row, 0]), states[:, row]) for row in range(len(frames))
        ]

    def _run_slices(self, slices: Sequence[VadSlice]) -> list[VadResult]:
        return [self._run_slice(one) for one in slices]

    def _run_slice(self, one: VadSlice) -> VadResult:
        highest, state = 0.0, one.state
        for samples in one.frames:
            (result,) = self._run([VadFrame(samples, state)])
            highest, state = max(highest, result.probability), result.state
        return VadResult(highest, state)


class VadStream:
    """One session's frames, in order."""

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)

    def push(self, frame: NDArray[np.float32]) -> Work[float]:
        """Probability of speech in the next `frame`, float32 [512] at 16 kHz."""
        samples = np.concatenate((self._context, frame))
        self._context = samples[-CONTEXT_SAMPLES:]
        result = yield from self._model.model.ask(VadFrame(samples, self._state))
        self._state = result.state
        return result.probability

    def highest(self, samples: NDArray[np.float32]) -> Work[float]:
        """The highest probability of speech in the next frames, float32 [512 n] at 16 kHz, in one
        call: of a recording that nobody listens to while it is judged."""
        samples = np.concatenate((self._context, samples))
        self._context = samples[-CONTEXT_SAMPLES:]
        frames = sliding_window_view(samples, CONTEXT_SAMPLES + FRAME_SAMPLES)[::FRAME_SAMPLES]
        result = yield from self._model.slices.ask(VadSlice(frames, self._state))
        self._state = result.state
        return result.probability


def _model_path() -> Path:
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "voice activity detection needs Silero's model: pip install silero-vad"
        )
    return Path(spec.origin).parent / "data" / "silero_vad.onnx"
