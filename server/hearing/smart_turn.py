"""Smart Turn v3, a general judge of turns, on onnxruntime: it hears how something is said.

The network is a file in the `pipecat-ai` wheel (BSD-2-Clause, Daily; its base is whisper tiny).
The package itself is never imported: it would import much else. It takes the last 8 s of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from aqaa.models.bundle import TOKENIZER_RATE, TurnThresholds
from aqaa.server.compute.model import Model, Work
from aqaa.server.hearing.end_of_turn import Eagerness, Samples
from aqaa.tokenizers.features import whisper_log_mel
from aqaa.tokenizers.stream import SampleBuffer

FILE = "audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx"  # in the wheel
WINDOW_SAMPLES = 8 * TOKENIZER_RATE  # what it hears at once; shorter sound has zeros before it
MEL_BINS = 80  # whisper tiny's
VARIANCE_FLOOR = 1e-7  # of a wave that is scaled to a variance of one, as in whisper's features
# With more silence it leans to "complete": its early answer is the better one. Two of the VAD's
# frames: a stop consonant is rarely silent for so long.
ASK_AFTER_MS = 64
MAX_BATCH = 4

# Of commands by people `medium` cuts off 2.5 %, as a plain silence of 350 ms does, and half of the
# ends come 120 ms sooner (docs/performance.md). On synthesised speech it hears nothing, and whole
# questions may get values near 0: only a client that asks for patience waits longer for these.
MEDIUM = TurnThresholds(sure=0.95, likely=0.0, unlikely=0.0)
THRESHOLDS: dict[Eagerness, TurnThresholds] = {
    "low": TurnThresholds(sure=0.99, likely=0.5, unlikely=0.01),
    "medium": MEDIUM,
    "auto": MEDIUM,
    "high": TurnThresholds(sure=0.5, likely=0.0, unlikely=0.0),
}


class SmartTurn:
    """The network; shared by all sessions."""

    name = "Smart Turn v3.2"
    ask_after_ms = ASK_AFTER_MS

    def __init__(self, session: Any) -> None:
        self._session = session
        self.model = Model[Samples, float]("smart_turn", self._run, max_batch=MAX_BATCH)

    @classmethod
    def find(cls) -> SmartTurn | None:
        """The network in the installed wheel; None: it is not installed."""
        spec = find_spec("pipecat")
        if spec is None or not spec.submodule_search_locations:
            return None
        file = Path(spec.submodule_search_locations[0]) / FILE
        if not file.is_file():
            return None
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        return cls(onnxruntime.InferenceSession(str(file), options, providers=providers))

    def thresholds(self, eagerness: Eagerness) -> TurnThresholds:
        """From which probability on it is believed."""
        return THRESHOLDS[eagerness]

    def listen(self) -> SmartTurnListener:
        """A listener for one turn."""
        return SmartTurnListener(self.model)

    def _run(self, sounds: Sequence[Samples]) -> list[float | Exception]:
        features = np.stack([features_of(sound) for sound in sounds])
        (chances,) = self._session.run(None, {"input_features": features})
        return [float(chance) for chance in np.ravel(chances)]


class SmartTurnListener:
    """One turn's last seconds."""

    def __init__(self, model: Model[Samples, float]) -> None:
        self._model = model
        self._recent = SampleBuffer()

    def hear(self, samples: Samples, ids: Sequence[int]) -> None:
        """The turn has grown by `samples`, float32 [n] at 16 kHz."""
        self._recent.append(samples)
        self._recent.drop(max(0, len(self._recent) - WINDOW_SAMPLES))

    def chance_of_end(self, rest: Sequence[int]) -> Work[float]:
        """The probability that the turn is over; `rest` tells it nothing."""
        return (yield from self._model.ask(self._recent.peek(len(self._recent)).copy()))

    def kinds(self, rest: Sequence[int]) -> Work[None]:
        """It was taught ends only."""
        yield from ()


def features_of(sound: Samples) -> Samples:
    """Whisper's log-mel [80, 800] float32 of up to 8 s at 16 kHz, zeros before what is shorter.

    The sound is scaled to a variance of one first.
    """
    whole = np.zeros(WINDOW_SAMPLES, np.float32)
    whole[WINDOW_SAMPLES - sound.size :] = sound
    whole = (whole - whole.mean()) / np.sqrt(whole.var() + np.float32(VARIANCE_FLOOR))
    return np.ascontiguousarray(whisper_log_mel(whole, bins=MEL_BINS).T)
