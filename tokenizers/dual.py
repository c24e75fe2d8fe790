"""Both tokenizers and the interleaver as one: audio in, the decoder's ids out, in whole groups.

Whatever is asked of it comes in two forms: `push`, `flush` and `encode` compute in the caller's
thread; `pushing`, `flushing` and `encoding` are the same step by step (`tokenizers.steps`), and
`DualTokenizer.run` computes what many of them ask for in one call of each network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE, Bundle
from aqaa.models.errors import StreamClosedError
from aqaa.tokenizers.funasr_encoder import EncoderChunk
from aqaa.tokenizers.interleave import Interleaver, interleave
from aqaa.tokenizers.linguistic import LinguisticReply, LinguisticStream, LinguisticTokenizer
from aqaa.tokenizers.normalise import RunningGain, prepare
from aqaa.tokenizers.semantic import SemanticStream, SemanticTokenizer
from aqaa.tokenizers.semantic_network import MelWindow
from aqaa.tokenizers.steps import Steps, run_alone
from aqaa.tokenizers.stream import Codes, Samples, check_samples, join_codes
from aqaa.tokenizers.transcriber import WindowOrTail

Request = EncoderChunk | MelWindow
Reply = LinguisticReply | Codes


@dataclass(frozen=True)
class Encoded:
    """What an utterance became: raw codes of both tokenizers, the decoder's ids, and the linguistic
    encoder's windows, if they are kept."""

    linguistic: Codes
    semantic: Codes
    ids: list[int]
    windows: list[WindowOrTail]


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
        keep_windows: bool = False,
    ) -> None:
        """`keep_windows`: the linguistic encoder's windows are kept for a transcriber to take."""
        self.linguistic = linguistic
        self.semantic = semantic
        self.audio_offset = audio_offset
        self._normalise = normalise
        self._stream_peak = stream_peak
        self._keep_windows = keep_windows

    @classmethod
    def load(cls, bundle: Bundle, device: str = "cpu") -> DualTokenizer:
        """Load both parts of the bundle's tokenizer, in float32: rounding would change tokens.

        Raises:
            BundleError: a file is missing, damaged or does not fit; the message names it.
        """
        return cls(
            LinguisticTokenizer.load(bundle.tokenizer, device),
            SemanticTokenizer.load(bundle.tokenizer, device),
            audio_offset=bundle.tokens.audio_offset,
            normalise=bundle.tokenizer.normalise,
            stream_peak=bundle.tokenizer.stream_peak,
            keep_windows=bundle.transcriber is not None,
        )

    def encode(self, wav: NDArray[np.generic]) -> list[int]:
        """Decoder ids, in whole groups, of a whole utterance `wav` (float `[m]`, 16 kHz mono).

        Scaled to the published chat path's peak if the bundle says so; never trimmed.

        Raises:
            AudioError: empty or unusable audio.
        """
        return self.encode_fully(wav).ids

    def encode_fully(self, wav: NDArray[np.generic]) -> Encoded:
        """As `encode`, with the raw codes of both tokenizers, and the windows if they are kept.

        Raises:
            AudioError: empty or unusable audio.
        """
        return run_alone(self.encoding(wav), self.run)

    def encoding(self, wav: NDArray[np.generic]) -> Steps[Request, Reply, Encoded]:
        """`encode_fully`, step by step."""
        samples = prepare(wav, normalise=self._normalise)
        stream = self.linguistic.stream(keep_windows=self._keep_windows)
        parts = [(yield from _linguistic(stream.pushing(samples)))]
        parts.append((yield from _linguistic(stream.flushing())))
        linguistic = join_codes(parts)
        semantic = yield from _semantic(self.semantic.encoding(samples))
        ids = interleave(linguistic.tolist(), semantic.tolist(), self.audio_offset)
        return Encoded(linguistic, semantic, ids, stream.take_windows())

    def windows_of(self, wav: NDArray[np.generic]) -> Iterator[list[WindowOrTail]]:
        """The linguistic encoder's windows of a whole utterance, for who wants its words alone.

        A second of sound at a time: each is computed when it is asked for.

        Raises:
            AudioError: empty or unusable audio.
        """
        samples = prepare(wav, normalise=self._normalise)
        stream = self.linguistic.stream(keep_windows=True)
        for begin in range(0, samples.size, TOKENIZER_RATE):
            stream.push(samples[begin : begin + TOKENIZER_RATE])
            yield stream.take_windows()
        stream.flush()
        yield stream.take_windows()

    def warm(self, most: int) -> None:
        """On a GPU: prepare for batches of up to `most` requests."""
        self.linguistic.encoder.warm(most)

    def run(self, requests: Sequence[Request]) -> list[Reply]:
        """The reply to each request, in one call of either network, each as it would be alone."""
        chunks = [request for request in requests if isinstance(request, EncoderChunk)]
        windows = [request for request in requests if isinstance(request, MelWindow)]
        encoded, codes = iter(self.linguistic.run(chunks)), iter(self.semantic.network.run(windows))
        return [
            next(encoded) if isinstance(request, EncoderChunk) else next(codes)
            for request in requests
        ]

    def stream(self) -> DualStream:
        """A new stream; cheap. It is scaled by a running peak if the bundle says so."""
        return DualStream(
            self,
            self.linguistic.stream(keep_windows=self._keep_windows),
            self.semantic.stream(),
            Interleaver(self.audio_offset),
            RunningGain(self._stream_peak) if self._stream_peak else None,
        )


class DualStream:
    """Decoder ids as audio comes, in whole groups, the same for every cutting of the audio."""

    def __init__(
        self,
        tokenizer: DualTokenizer,
        linguistic: LinguisticStream,
        semantic: SemanticStream,
        interleaver: Interleaver,
        gain: RunningGain | None,
    ) -> None:
        self._tokenizer = tokenizer
        self._linguistic = linguistic
        self._semantic = semantic
        self._interleaver = interleaver
        self._gain = gain
        self._closed = False

    def push(self, pcm: NDArray[np.generic]) -> list[int]:
        """The ids that `pcm` (float `[n]`, 16 kHz mono) completes; often none.

        Raises:
            AudioError: unusable samples; the stream is as it was and may be used on.
            StreamClosedError: the stream was flushed, or a fault closed it.
        """
        return run_alone(self.pushing(pcm), self._tokenizer.run)

    def pushing(self, pcm: NDArray[np.generic]) -> Steps[Request, Reply, list[int]]:
        """`push`, step by step. Dropping it half-way closes the stream."""
        self._check_open()
        samples = check_samples(pcm)
        return (yield from self._advance(self._gain.push(samples) if self._gain else samples))

    def flush(self) -> list[int]:
        """The ids that were waiting for more audio; closes the stream.

        Codes that fill no group are dropped, as in the reference.

        Raises:
            StreamClosedError: the stream was flushed before, or a fault closed it.
        """
        return run_alone(self.flushing(), self._tokenizer.run)

    def flushing(self) -> Steps[Request, Reply, list[int]]:
        """`flush`, step by step."""
        self._check_open()
        ids = (yield from self._advance(self._gain.flush())) if self._gain else []
        self._closed = True
        linguistic = yield from _linguistic(self._linguistic.flushing())
        semantic = yield from _semantic(self._semantic.flushing())
        return ids + self._join(linguistic, semantic)

    def take_windows(self) -> list[WindowOrTail]:
        """The linguistic encoder's windows since the last call, if they are kept."""
        return self._linguistic.take_windows()

    def fork(self) -> DualStream:
        """An independent stream in the same state: flush it at a pause, go on with the original."""
        self._check_open()
        return DualStream(
            self._tokenizer,
            self._linguistic.fork(),
            self._semantic.fork(),
            self._interleaver.copy(),
            self._gain.copy() if self._gain else None,
        )

    def _check_open(self) -> None:
        if self._closed:
            raise StreamClosedError("this token stream has ended: open a new one")

    def _advance(self, samples: Samples) -> Steps[Request, Reply, list[int]]:
        try:
            linguistic = yield from _linguistic(self._linguistic.pushing(samples))
            semantic = yield from _semantic(self._semantic.pushing(samples))
            return self._join(linguistic, semantic)
        except BaseException:
            self._closed = True  # one tokenizer may be ahead of the other
            raise

    def _join(self, linguistic: Codes, semantic: Codes) -> list[int]:
        return self._interleaver.push(linguistic.tolist(), semantic.tolist())


def _linguistic(
    steps: Steps[EncoderChunk, LinguisticReply, Codes],
) -> Steps[Request, Reply, Codes]:
    """`steps` among those of both tokenizers, as far as types go."""
    return cast(Steps[Request, Reply, Codes], steps)


def _semantic(steps: Steps[MelWindow, Codes, Codes]) -> Steps[Request, Reply, Codes]:
    """`steps` among those of both tokenizers, as far as types go."""
    return cast(Steps[Request, Reply, Codes], steps)
