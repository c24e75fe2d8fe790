"""Voice activity detection: Silero's network on onnxruntime, in frames of 32 ms.

The network is a file in the `silero-vad` wheel that takes any number of one stream's frames in a
call. The package itself is never imported: it would import torchaudio.
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
State = tuple[NDArray[np.float32], NDArray[np.float32]]  # of the recurrent layer, [1, 1, 128] each

FRAME_SAMPLES = 512  # samples at 16 kHz, the only frame that Silero VAD 5 and 6 take
CONTEXT_SAMPLES = 64  # of the frame before, which the network sees again (as in Silero's wrapper)
STATE_SHAPE = (1, 1, 128)
SPEECH_PROBABILITY = ServerVad().threshold  # from here on somebody speaks in a frame
# Of one call, at most: the frames of a second, 2 ms of computing.
CALL_SAMPLES = TOKENIZER_RATE // FRAME_SAMPLES * FRAME_SAMPLES


@dataclass(frozen=True, eq=False)
class VadFrames:
    """A stream's next frames, each with its context, float32 [n, 64 + 512], and the state before
    the first."""

    frames: NDArray[np.float32]
    state: State


@dataclass(frozen=True, eq=False)
class VadResult:
    """The frames' probabilities of speech, and the state after the last."""

    probabilities: list[float]
    state: State


class VadModel:
    """The network; shared by all sessions.

    Attributes:
        model: takes frames of one stream; each gets what it gets in a call of its own. Sessions
            share no call: a frame costs about the same beside its neighbours as beside others'.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.model = Model[VadFrames, VadResult](
            "vad", self._run, size_of=lambda asked: len(asked.frames)
        )

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
        path = wheel_file("silero_vad_16k_sequence.onnx")
        return cls(onnxruntime.InferenceSession(str(path), options, providers=providers))

    def stream(self) -> VadStream:
        """A stream with a state of its own."""
        return VadStream(self)

    def _run(self, calls: Sequence[VadFrames]) -> list[VadResult]:
        return [self._hear(asked) for asked in calls]

    def _hear(self, asked: VadFrames) -> VadResult:
        hidden, cell = asked.state
        inputs = {"input": asked.frames, "h": hidden, "c": cell}
        probabilities, hidden, cell = self._session.run(None, inputs)
        return VadResult(probabilities.tolist(), (hidden, cell))


class VadStream:
    """One session's frames, in order."""

    def __init__(self, model: VadModel) -> None:
        self._model = model
        self._state: State = (np.zeros(STATE_SHAPE, np.float32), np.zeros(STATE_SHAPE, np.float32))
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
