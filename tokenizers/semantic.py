"""The semantic tokenizer ("vq06"): CosyVoice-1.0's `speech_tokenizer_v1.onnx`, 25 codes a second.

Every token of the published network depends on up to 30 s of audio around it, so a stream has to
settle for less: each chunk is computed on a window [left | chunk | right] at its absolute position
and its tokens stay as they are. What that costs is in docs/streaming-tokenizers.md; the window's
sizes are the bundle's. A checkpoint trained chunk-causal (`exact`) loses nothing.

Streams ask for windows (`tokenizers.steps`), which `SemanticNetwork.run` computes for many of them.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from aqaa.models.bundle import (
    SEMANTIC_SEGMENT_SECONDS,
    SEMANTIC_TOKEN_MS,
    TOKENIZER_RATE,
    SemanticStreaming,
    TokenizerConfig,
)
from aqaa.tokenizers.features import (
    MEL_BINS,
    MEL_HALF_WINDOW_SAMPLES,
    MEL_HOP_SAMPLES,
    clamp_log_mel,
    log_power_mel,
    reflect_head,
    reflect_tail,
    whisper_log_mel,
)
from aqaa.tokenizers.normalise import prepare
from aqaa.tokenizers.semantic_network import MelWindow, SemanticNetwork
from aqaa.tokenizers.steps import Steps, run_alone
from aqaa.tokenizers.stream import Codes, SampleBuffer, Samples, TokenStream, join_codes

_FRAME_MS = MEL_HOP_SAMPLES * 1000 // TOKENIZER_RATE
_TOKEN_FRAMES = SEMANTIC_TOKEN_MS // _FRAME_MS
_SEGMENT_SAMPLES = SEMANTIC_SEGMENT_SECONDS * TOKENIZER_RATE  # positions start afresh in each
_MIN_SEGMENT_SAMPLES = 480  # 30 ms; the reference skips shorter segments
# A whole recording of an exact checkpoint is computed in pieces of about so many frames (1.9 s),
# each with its left context, so that no call is long. Others need the whole segment at once.
_PIECE_FRAMES = 192


class SemanticTokenizer:
    """Weights of the semantic tokenizer; opens streams."""

    def __init__(self, network: SemanticNetwork, streaming: SemanticStreaming) -> None:
        self.network = network
        self.streaming = streaming

    @classmethod
    def load(cls, config: TokenizerConfig, device: str = "cpu") -> SemanticTokenizer:
        """Read the ONNX file of a published layout.

        Raises:
            BundleError: the file is missing, damaged or another network; the message names it.
        """
        return cls(SemanticNetwork.load(config.path / config.semantic, device), config.streaming)

    def encode(self, wav: NDArray[np.generic]) -> Codes:
        """Codes `[n]` in [0, 4096) of a whole utterance `wav` (float `[m]`, 16 kHz mono).

        Every 30 s begin a new segment, and one of fewer than 480 samples (30 ms) gives no code, as
        in the reference.

        Raises:
            AudioError: empty or unusable audio.
        """
        return run_alone(self.encoding(prepare(wav)), self.network.run)

    def encoding(self, samples: Samples) -> Steps[MelWindow, Codes, Codes]:
        """`encode`, step by step, of checked `samples`."""
        parts: list[Codes] = []
        for begin in range(0, samples.size, _SEGMENT_SAMPLES):
            segment = samples[begin : begin + _SEGMENT_SAMPLES]
            if segment.size >= _MIN_SEGMENT_SAMPLES:
                parts += yield from self._whole(segment)
        return join_codes(parts)

    def _whole(self, segment: Samples) -> Steps[MelWindow, Codes, list[Codes]]:
        if not self.streaming.exact:
            return [(yield MelWindow(whisper_log_mel(segment), 0))]
        chunk = self.streaming.chunk_ms // _FRAME_MS
        left = self.streaming.left_ms // _FRAME_MS
        mel = whisper_log_mel(segment, chunk_frames=chunk, mel_peak=self.streaming.mel_peak)
        piece = max(1, _PIECE_FRAMES // chunk) * chunk
        parts: list[Codes] = []
        for begin in range(0, len(mel), piece):
            first, end = max(0, begin - left), min(begin + piece, len(mel))
            parts.append((yield _window(mel[first:end], first, begin, end)))
        return parts

    def stream(self) -> SemanticStream:
        """A new stream; cheap."""
        return SemanticStream(self)


def _window(mel: Samples, first: int, begin: int, end: int) -> MelWindow:
    """A request for the tokens of frames [begin, end) of a segment, on `mel` from `first` on."""
    skip = (begin - first) // _TOKEN_FRAMES
    count = -(-(end - begin) // _TOKEN_FRAMES)
    return MelWindow(mel, first // _TOKEN_FRAMES, (skip, skip + count))


class SemanticStream(TokenStream[MelWindow, Codes]):
    """Codes as audio comes: a chunk's, when its right context is there (and 2.5 ms for the FFT)."""

    def __init__(self, tokenizer: SemanticTokenizer) -> None:
        super().__init__(tokenizer.network.run)
        self._tokenizer = tokenizer
        self._segment = _Segment(tokenizer.streaming)

    def _copy_state(self, original: Self) -> None:
        self._tokenizer = original._tokenizer
        self._segment = original._segment.copy()

    def _consume(self, pcm: Samples) -> Steps[MelWindow, Codes, Codes]:
        parts: list[Codes] = []
        while pcm.size:
            room = _SEGMENT_SAMPLES - self._segment.received
            parts += yield from self._segment.push(pcm[:room])
            pcm = pcm[room:]
            if self._segment.received == _SEGMENT_SAMPLES:
                parts += yield from self._segment.finish()
                self._segment = _Segment(self._tokenizer.streaming)
        return join_codes(parts)

    def _finish(self) -> Steps[MelWindow, Codes, Codes]:
        return join_codes((yield from self._segment.finish()))


class _Segment:
    """Up to 30 s of a stream: mel frames of the window, and the chunk that is next."""

    def __init__(self, streaming: SemanticStreaming) -> None:
        self._chunk = streaming.chunk_ms // _FRAME_MS
        self._left = streaming.left_ms // _FRAME_MS
        self._right = streaming.right_ms // _FRAME_MS
        self.received = 0  # samples
        self._samples = SampleBuffer()  # what the next mel frame sees, and on
        self._padded = False  # whether the head's reflection is in `_samples`
        self._mel = np.empty((0, MEL_BINS), np.float32)  # clamped frames, from `_first` on
        self._first = 0
        self._loudest = np.float32(streaming.mel_peak)
        self._done = 0  # frames whose tokens are out

    def copy(self) -> _Segment:
        other = _Segment.__new__(_Segment)
        other.__dict__.update(self.__dict__)
        other._samples = self._samples.copy()
        return other

    def push(self, pcm: Samples) -> Steps[MelWindow, Codes, list[Codes]]:
        """Add samples of this segment; the codes of the chunks that are now complete."""
        self.received += pcm.size
        self._samples.append(pcm)
        parts = []
        while self.received >= MEL_HOP_SAMPLES * (self._window_end() - 1) + MEL_HALF_WINDOW_SAMPLES:
            end = self._done + self._chunk
            parts.append((yield from self._commit(end, self._window_end())))
        return parts

    def finish(self) -> Steps[MelWindow, Codes, list[Codes]]:
        """The segment has ended: the codes of what is left, with what right context there is."""
        if self.received < _MIN_SEGMENT_SAMPLES:
            return []
        self._pad_head()
        self._samples.append(reflect_tail(self._samples.peek(len(self._samples))))
        frames = self.received // MEL_HOP_SAMPLES
        parts = []
        while self._done < frames:
            end = min(self._done + self._chunk, frames)
            parts.append((yield from self._commit(end, min(self._window_end(), frames))))
        return parts

    def _window_end(self) -> int:
        return self._done + self._chunk + self._right

    def _pad_head(self) -> None:
        if not self._padded:
            received = self._samples.peek(len(self._samples))
            self._samples = SampleBuffer()
            self._samples.append(reflect_head(received))
            self._samples.append(received)
            self._padded = True

    def _commit(self, end: int, window_end: int) -> Steps[MelWindow, Codes, Codes]:
        """The codes of frames [done, end), computed on frames [first, window_end)."""
        self._extend(window_end)
        codes = yield _window(self._mel, self._first, self._done, end)
        self._done = end
        first = max(self._first, end - self._left)
        self._mel = self._mel[first - self._first :]
        self._first = first
        return codes

    def _extend(self, end: int) -> None:
        """Compute the mel frames up to `end`, clamped below the loudest so far."""
        self._pad_head()
        new = end - self._first - len(self._mel)
        if not new:
            return
        seen = self._samples.peek((new - 1) * MEL_HOP_SAMPLES + 2 * MEL_HALF_WINDOW_SAMPLES)
        power = log_power_mel(seen)
        self._samples.drop(new * MEL_HOP_SAMPLES)
        self._loudest = np.maximum(self._loudest, power.max())
        self._mel = np.concatenate([self._mel, clamp_log_mel(power, self._loudest)])
