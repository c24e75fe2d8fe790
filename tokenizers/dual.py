"""Both tokenizers and the interleaver as one: audio in, the decoder's ids out, in whole groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE, Bundle
from aqaa.models.errors import StreamClosedError
from aqaa.tokenizers.interleave import Interleaver, interleave
from aqaa.tokenizers.linguistic import LinguisticStream, LinguisticTokenizer
from aqaa.tokenizers.normalise import RunningGain, prepare
from aqaa.tokenizers.semantic import SemanticStream, SemanticTokenizer
from aqaa.tokenizers.stream import Codes, Samples, check_samples, join_codes
from aqaa.tokenizers.transcriber import Step


@dataclass(frozen=True)
class Encoded:
    """What an utterance became: raw codes of both tokenizers, the decoder's ids, and the linguistic
    encoder's steps, if they are kept."""

    linguistic: Codes
    semantic: Codes
    ids: list[int]
    steps: list[Step]


class DualTokenizer:
    """Weights of both tokenizers; opens streams."""

    def __init__(
        self,
        linguistic: LinguisticTokenizer,
        semantic: SemanticTokenizer,
        *,
        audio_offset: int,
        normalise: bool = True,
        stream_peak: float = 0.0,
        keep_steps: bool = False,
    ) -> None:
        """`keep_steps`: the linguistic encoder's steps are kept for a transcriber to take."""
        self.linguistic = linguistic
        self.semantic = semantic
        self.audio_offset = audio_offset
        self._normalise = normalise
        self._stream_peak = stream_peak
        self._keep_steps = keep_steps

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu", threads: int = 1) -> DualTokenizer:
        """Load both parts of the bundle's tokenizer.

        Raises:
            BundleError: a file is missing, damaged or does not fit; the message names it.
        """
        return cls(
            LinguisticTokenizer.load(bundle.tokenizer, device),
            SemanticTokenizer.load(bundle.tokenizer, device, threads),
            audio_offset=bundle.tokens.audio_offset,
            normalise=bundle.tokenizer.normalise,
            stream_peak=bundle.tokenizer.stream_peak,
            keep_steps=bundle.transcriber is not None,
        )

    def encode(self, wav: NDArray[np.generic]) -> list[int]:
        """Decoder ids, in whole groups, of a whole utterance `wav` (float `[m]`, 16 kHz mono).

        Scaled to the published chat path's peak if the bundle says so; never trimmed.

        Raises:
            AudioError: empty or unusable audio.
        """
        return self.encode_fully(wav).ids

    def encode_fully(self, wav: NDArray[np.generic]) -> Encoded:
        """As `encode`, with the raw codes of both tokenizers, and the steps if they are kept.

        Raises:
            AudioError: empty or unusable audio.
        """
        samples = prepare(wav, normalise=self._normalise)
        stream = self.linguistic.stream(keep_steps=self._keep_steps)
        linguistic = join_codes([stream.push(samples), stream.flush()])
        semantic = self.semantic.encode(samples)
        ids = interleave(linguistic.tolist(), semantic.tolist(), self.audio_offset)
        return Encoded(linguistic, semantic, ids, stream.take_steps())

    def steps_of(self, wav: NDArray[np.generic]) -> Iterator[list[Step]]:
        """The linguistic encoder's steps of a whole utterance, for who wants its words alone.

        A second of sound at a time: each is computed when it is asked for.

        Raises:
            AudioError: empty or unusable audio.
        """
        samples = prepare(wav, normalise=self._normalise)
        stream = self.linguistic.stream(keep_steps=True)
        for begin in range(0, samples.size, TOKENIZER_RATE):
            stream.push(samples[begin : begin + TOKENIZER_RATE])
            yield stream.take_steps()
        stream.flush()
        yield stream.take_steps()

    def stream(self) -> DualStream:
        """A new stream; cheap. It is scaled by a running peak if the bundle says so."""
        return DualStream(
            self.linguistic.stream(keep_steps=self._keep_steps),
            self.semantic.stream(),
            Interleaver(self.audio_offset),
            RunningGain(self._stream_peak) if self._stream_peak else None,
        )


class DualStream:
    """Decoder ids as audio comes, in whole groups, the same for every cutting of the audio."""

    def __init__(
        self,
        linguistic: LinguisticStream,
        semantic: SemanticStream,
        weave: Interleaver,
        gain: RunningGain | None,
    ) -> None:
        self._linguistic = linguistic
        self._semantic = semantic
        self._weave = weave
        self._gain = gain
        self._closed = False

    def push(self, pcm: NDArray[np.generic]) -> list[int]:
        """The ids that `pcm` (float `[n]`, 16 kHz mono) completes; often none.

        Raises:
            AudioError: unusable samples; the stream is as it was and may be used on.
            StreamClosedError: the stream was flushed, or a fault closed it.
        """
        self._check_open()
        samples = check_samples(pcm)
        return self._advance(self._gain.push(samples) if self._gain else samples)

    def flush(self) -> list[int]:
        """The ids that were waiting for more audio; closes the stream.

        Codes that fill no group are dropped, as in the reference.

        Raises:
            StreamClosedError: the stream was flushed before, or a fault closed it.
        """
        self._check_open()
        ids = self._advance(self._gain.flush()) if self._gain else []
        self._closed = True
        return ids + self._join(self._linguistic.flush(), self._semantic.flush())

    def take_steps(self) -> list[Step]:
        """The linguistic encoder's steps since the last call, if they are kept."""
        return self._linguistic.take_steps()

    def fork(self) -> DualStream:
        """An independent stream in the same state: flush it at a pause, go on with the original."""
        self._check_open()
        return DualStream(
            self._linguistic.fork(),
            self._semantic.fork(),
            self._weave.copy(),
            self._gain.copy() if self._gain else None,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError("this token stream has ended: open a new one")

    def _advance(self, samples: Samples) -> list[int]:
        try:
            return self._join(self._linguistic.push(samples), self._semantic.push(samples))
        except BaseException:
            self._closed = True  # one tokenizer may be ahead of the other
            raise

    def _join(self, linguistic: Codes, semantic: Codes) -> list[int]:
        return self._weave.push(linguistic.tolist(), semantic.tolist())
