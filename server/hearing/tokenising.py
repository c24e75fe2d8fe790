"""The audio tokenizers as a model of the executor: what their streams ask for, of all sessions."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from aqaa.server.compute.model import Model, Work
from aqaa.tokenizers.semantic_network import MelWindow
from aqaa.tokenizers.steps import Steps
from aqaa.tokenizers.transcriber import WindowOrTail

Samples = NDArray[np.float32]
T = TypeVar("T")

CPU_BATCH, GPU_BATCH = 8, 64  # requests of one network in one call
WINDOW_FRAMES = 96  # mel windows whose lengths differ by less are padded into one batch


class AudioTokenStream(Protocol):
    """A streaming tokenizer's state (`aqaa.tokenizers.dual.DualStream`)."""

    def pushing(self, pcm: Samples, /) -> Steps[Any, Any, list[int]]:
        """New decoder ids, in whole groups, of float32 [n] at 16 kHz."""

    def flushing(self) -> Steps[Any, Any, list[int]]:
        """The ids that were waiting for more sound; the stream is over."""

    def fork(self) -> AudioTokenStream:
        """A copy that goes its own way."""

    def take_windows(self) -> Sequence[WindowOrTail]:
        """The encoder's windows since the last call; none if they are not kept."""


class EncodedRecording(Protocol):
    """A whole recording (`aqaa.tokenizers.dual.Encoded`)."""

    @property
    def ids(self) -> list[int]:
        """Its decoder ids."""

    @property
    def windows(self) -> Sequence[WindowOrTail]:
        """The encoder's windows; none if they are not kept."""


class AudioTokenizer(Protocol):
    """Makes token streams (`aqaa.tokenizers.dual.DualTokenizer`)."""

    def stream(self) -> AudioTokenStream:
        """A new stream."""

    def encoding(self, wav: Samples, /) -> Steps[Any, Any, EncodedRecording]:
        """A whole recording, float32 [n] at 16 kHz."""

    def windows_of(self, wav: Samples, /) -> Iterator[list[WindowOrTail]]:
        """The encoder's windows of a whole recording, a second at a time."""

    def run(self, requests: Sequence[Any], /) -> Sequence[Any]:
        """The replies to what streams and recordings ask for."""


class Tokenising:
    """An audio tokenizer whose networks compute in the executor; shared by all sessions."""

    def __init__(self, tokenizer: AudioTokenizer, device: str = "cpu") -> None:
        self._tokenizer = tokenizer
        cpu = device == "cpu"
        self.model = Model[Any, Any](
            "tokenizer",
            tokenizer.run,
            shape_of=_shape_of,
            max_batch=CPU_BATCH if cpu else GPU_BATCH,
            at_once=None if cpu else 1,
        )

    def stream(self) -> AudioTokenStream:
        """A new stream, for `push` and `flush`."""
        return self._tokenizer.stream()

    def push(self, stream: AudioTokenStream, samples: Samples) -> Work[list[int]]:
        """The decoder ids, in whole groups, that `samples` (float32 [n] at 16 kHz) complete."""
        return self._compute(stream.pushing(samples))

    def flush(self, stream: AudioTokenStream) -> Work[list[int]]:
        """The rest of a stream's decoder ids."""
        return self._compute(stream.flushing())

    def encode(self, samples: Samples) -> Work[EncodedRecording]:
        """A whole recording, float32 [n] at 16 kHz.

        Raises:
            AudioError: empty or unusable audio.
        """
        return self._compute(self._tokenizer.encoding(samples))

    def _compute(self, steps: Steps[Any, Any, T]) -> Work[T]:
        """`steps`, each of whose requests is a call of the model."""
        try:
            request = next(steps)
            while True:
                request = steps.send((yield from self.model.ask(request)))
        except StopIteration as end:
            result: T = end.value
            return result


def _shape_of(request: object) -> Hashable:
    length = len(request.mel) // WINDOW_FRAMES if isinstance(request, MelWindow) else 0
    return type(request), length
