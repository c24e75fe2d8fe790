"""Voice activity detection: Silero's network on onnxruntime, in frames of 32 ms.

The network's weights are in the `silero-vad` wheel (`vad_network`). The package itself is never
imported: it would import torchaudio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import MissingDependencyError
from aqaa.server.compute.model import Model, Work
from aqaa.server.protocol.session_types import ServerVad

Samples = NDArray[np.float32]

FRAME_SAMPLES = 512  # samples at 16 kHz, the only frame that Silero VAD 5 and 6 take
CONTEXT_SAMPLES = 64  # of the frame before, which the network sees again (as in Silero's wrapper)
STATE_SHAPE = (2, 128)  # the recurrent state of one stream
SPEECH_PROBABILITY = ServerVad().threshold  # from here on somebody speaks in a frame
# Of one stream in one call, at most: the frames of a second, 0.6 ms of computing.
CALL_SAMPLES = TOKENIZER_RATE // FRAME_SAMPLES * FRAME_SAMPLES
MAX_BATCH = 16  # streams; the time of a batch grows as its size from about eight on


@dataclass(frozen=True, eq=False)
class VadFrames:
    """A stream's next frames, each with its context, float32 [n, 64 + 512], and the state [2, 128]
    before the first."""

    frames: NDArray[np.float32]
    state: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class VadResult:
    """The frames' probabilities of speech, and the state [2, 128] after the last."""

    probabilities: list[float]
    state: NDArray[np.float32]


class VadModel:
    """The network; shared by all sessions.

    Attributes:
        model: takes frames of one stream, several sessions' in one batch; each frame gets what it
            gets alone.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.model = Model[VadFrames, VadResult](
            "vad", self._run, max_batch=MAX_BATCH, size_of=lambda asked: len(asked.frames)
        )

    @classmethod
    def load(cls) -> VadModel:
        """Open the model in the wheel.

        Raises:
            MissingDependencyError: the wheel is not installed, or has another network.
        """
        import onnx
        import onnxruntime

        from aqaa.server.hearing.vad_network import many_streams

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a frame takes 0.1 ms: a second thread only costs
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        network = many_streams(onnx.load(wheel_file("silero_vad_16k_sequence.onnx")))
        return cls(onnxruntime.InferenceSession(network, options, providers=providers))

    def stream(self) -> VadStream:
        """A stream with a state of its own."""
        return VadStream(self)

    def _run(self, calls: Sequence[VadFrames]) -> list[VadResult]:
        lengths = np.array([len(asked.frames) for asked in calls], np.int32)
        ends = np.cumsum(lengths)
        # Of a stream with fewer frames than another the rows behind its last count for nothing.
        rows = ends - lengths + np.arange(lengths.max())[:, None]
        states = np.stack([asked.state for asked in calls], axis=1)
        inputs = {
            "frames": np.concatenate([asked.frames for asked in calls]),
            "rows": np.minimum(rows, ends[-1] - 1),
            "lengths": lengths,
            "hidden": states[:1],
            "cell": states[1:],
        }
        probabilities, hidden, cell = self._session.run(None, inputs)
        states = np.concatenate((hidden, cell))
        return [
            VadResult(probabilities[:length, at].tolist(), states[:, at])
            for at, length in enumerate(lengths)
        ]


class VadStream:
    """One session's frames, in order."""

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self._state = np.zeros(STATE_SHAPE, np.float32)
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)

    def push(self, samples: Samples) -> Work[list[float]]:
        """The probabilities of speech in the next n frames, float32 [512 n] at 16 kHz."""
        new = samples.reshape(-1, FRAME_SAMPLES)
        frames = np.empty((len(new), CONTEXT_SAMPLES + FRAME_SAMPLES), np.float32)
        frames[:, CONTEXT_SAMPLES:] = new
        frames[0, :CONTEXT_SAMPLES] = self._context
        frames[1:, :CONTEXT_SAMPLES] = new[:-1, -CONTEXT_SAMPLES:]
        self._context = frames[-1, -CONTEXT_SAMPLES:].copy()
        result = yield from self._model.model.ask(VadFrames(frames, self._state))
        self._state = result.state
        return result.probabilities


def wheel_file(name: str) -> Path:
    """A network in the wheel.

    Raises:
        MissingDependencyError: the wheel is not installed.
    """
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "voice activity detection needs Silero's model: pip install 'silero-vad>=6.2.2'"
        )
    return Path(spec.origin).parent / "data" / name
