"""The linguistic tokenizer ("vq02"): Paraformer's online encoder and k-means, 16.7 codes a second.

Audio -> Kaldi filterbank -> 7 frames stacked every 6 (60 ms) -> global mean and variance ->
FunASR's chunked encoder, 4 frames (240 ms) at a time -> the nearest of 1,024 centres. What the
published code does with a whole utterance is the same loop over chunks: here `encode` is a stream.
Streams ask for chunks (`tokenizers.steps`); `LinguisticTokenizer.run` computes those of many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from aqaa.models.bundle import TOKENIZER_RATE, TokenizerConfig
from aqaa.models.copies import to_cpu
from aqaa.models.errors import BundleError
from aqaa.models.groups import LINGUISTIC_CODES
from aqaa.models.weights import load_state_dict, require_file
from aqaa.tokenizers.features import (
    FBANK_BINS,
    FBANK_HOP_SAMPLES,
    FBANK_WINDOW_SAMPLES,
    kaldi_fbank,
)
from aqaa.tokenizers.funasr_encoder import CHUNK_FRAMES, ChunkEncoder, EncodedChunk, EncoderChunk
from aqaa.tokenizers.normalise import prepare
from aqaa.tokenizers.steps import Steps
from aqaa.tokenizers.stream import (
    Codes,
    SampleBuffer,
    Samples,
    TokenStream,
    join_codes,
)
from aqaa.tokenizers.transcriber import Tail, Window, WindowOrTail

# Low frame rate: stack 7 filterbank frames every 6 (`lfr_m`, `lfr_n` of the published config.yaml).
_STACKED_FRAMES = 7
_STRIDE_FRAMES = 6
# How often the first frame is repeated at a stream's start.
_START_REPEATS = (_STACKED_FRAMES - 1) // 2
_INPUT_SIZE = _STACKED_FRAMES * FBANK_BINS
# Filterbank frames that the 4 stacked frames of a chunk are made of.
_CHUNK_FBANK_FRAMES = _STRIDE_FRAMES * (CHUNK_FRAMES - 1) + _STACKED_FRAMES

_FRONTEND = {
    "fs": TOKENIZER_RATE,
    "window": "hamming",
    "n_mels": FBANK_BINS,
    "frame_length": 25,
    "frame_shift": 10,
    "lfr_m": _STACKED_FRAMES,
    "lfr_n": _STRIDE_FRAMES,
}


@dataclass(frozen=True)
class Cmvn:
    """Global mean and variance normalisation: (x + shift) * scale, both [560] float32."""

    shift: Samples
    scale: Samples


class LinguisticTokenizer:
    """Weights of the linguistic tokenizer; opens streams."""

    def __init__(self, encoder: ChunkEncoder, cmvn: Cmvn, centres: torch.Tensor) -> None:
        self.encoder = encoder
        self.cmvn = cmvn
        self.centres = centres

    @classmethod
    def load(cls, config: TokenizerConfig, device: str = "cpu") -> LinguisticTokenizer:
        """Read the Paraformer-online folder and `linguistic_tokenizer.npy` of a published layout.

        Raises:
            BundleError: a file is missing, damaged or does not fit; the message names it.
            MissingDependencyError: FunASR is not installed.
        """
        folder = config.path / config.linguistic
        file = require_file(folder / "config.yaml", "the linguistic tokenizer's config")
        settings = _read_settings(file)
        state = load_state_dict(folder / "model.pt", "the linguistic tokenizer's encoder")
        try:
            encoder = ChunkEncoder.load(settings, _INPUT_SIZE, state, device)
        except BundleError as error:
            raise BundleError(f"{folder}: {error}") from error
        centres = _read_centres(config.path / config.linguistic_codebook, encoder.output_size)
        return cls(encoder, read_cmvn(folder / "am.mvn"), centres.to(device))

    def encode(self, wav: NDArray[np.generic]) -> Codes:
        """Codes `[n]` in [0, 1024) of a whole utterance `wav` (float `[m]`, 16 kHz mono).

        Fewer than 880 samples (55 ms) give no code, and a tail of fewer behind the last 240 ms is
        lost, as in the reference.

        Raises:
            AudioError: empty or unusable audio.
        """
        samples = prepare(wav)
        stream = self.stream()
        return join_codes([stream.push(samples), stream.flush()])

    def stream(self, *, keep_windows: bool = False) -> LinguisticStream:
        """A new stream; cheap. `keep_windows`: for a transcriber, who must take them."""
        return LinguisticStream(self, keep_windows=keep_windows)

    @torch.inference_mode()
    def run(self, chunks: Sequence[EncoderChunk]) -> list[LinguisticReply]:
        """The codes of each chunk's new frames, all chunks in one call, each as it would be alone.

        A code is the nearest centre to what the encoder says of its frame, Euclidean.
        """
        if not chunks:
            return []
        encoded = self.encoder.run(chunks)
        counts = [len(chunk.frames) for chunk in chunks]
        # Counted from the front: a slice [-0:] would be all frames of a chunk that has no new ones.
        newest = [e.states[len(e.states) - n :] for e, n in zip(encoded, counts, strict=True)]
        codes = to_cpu(torch.cdist(torch.cat(newest), self.centres).argmin(-1).to(torch.int32))
        parts = np.split(codes.numpy(), np.cumsum(counts)[:-1])
        return [LinguisticReply(*reply) for reply in zip(parts, encoded, strict=True)]


@dataclass(frozen=True, eq=False)
class LinguisticReply:
    """The reply to a chunk: the codes `[t]` of its new frames, and what the encoder replied."""

    codes: Codes
    encoded: EncodedChunk


class LinguisticStream(TokenStream[EncoderChunk, LinguisticReply]):
    """Codes as audio comes: four at once, as soon as their 235 ms are there.

    (The reference waits for a whole chunk of 240 ms; its features need 80 samples less.)
    """

    def __init__(self, tokenizer: LinguisticTokenizer, *, keep_windows: bool = False) -> None:
        super().__init__(tokenizer.run)
        self._tokenizer = tokenizer
        self._windows: list[WindowOrTail] | None = [] if keep_windows else None
        self._state = tokenizer.encoder.initial_state()
        self._samples = SampleBuffer()  # from the start of the next filterbank frame on
        self._fbank = np.empty((0, FBANK_BINS), np.float32)  # frames that the next chunk sees again

    def _copy_state(self, original: Self) -> None:
        self._tokenizer = original._tokenizer
        self._windows = None if original._windows is None else list(original._windows)
        self._state = original._state
        self._samples = original._samples.copy()
        self._fbank = original._fbank

    def take_windows(self) -> list[WindowOrTail]:
        """The encoder's windows since the last call, for a transcriber; the last one after a flush.

        Empty where they are not kept.
        """
        windows = self._windows or []
        if self._windows is not None:
            self._windows = []
        return windows

    def _consume(self, pcm: Samples) -> Steps[EncoderChunk, LinguisticReply, Codes]:
        self._samples.append(pcm)
        parts: list[Codes] = []
        while len(self._samples) >= (wanted := self._samples_of_chunk()):
            self._take_fbank(wanted)
            parts.append((yield from self._encode(self._fbank, last=False)))
            self._fbank = self._fbank[_STRIDE_FRAMES * CHUNK_FRAMES :]
        return join_codes(parts)

    def _finish(self) -> Steps[EncoderChunk, LinguisticReply, Codes]:
        self._take_fbank(len(self._samples))
        count = len(self._fbank)
        if count < _STACKED_FRAMES:
            if self._windows is not None:
                self._windows.append(Tail(self._state))
            return np.empty(0, np.int32)
        # The reference stacks as long as a stack's centre is there, and repeats the last frame.
        stacks = -(-(count - _START_REPEATS) // _STRIDE_FRAMES)
        missing = _STRIDE_FRAMES * (stacks - 1) + _STACKED_FRAMES - count
        fbank = np.pad(self._fbank, ((0, max(0, missing)), (0, 0)), mode="edge")
        return (yield from self._encode(fbank, last=True))

    def _samples_of_chunk(self) -> int:
        have = len(self._fbank) or _START_REPEATS
        return FBANK_HOP_SAMPLES * (_CHUNK_FBANK_FRAMES - have - 1) + FBANK_WINDOW_SAMPLES

    def _take_fbank(self, count: int) -> None:
        """Move the first `count` samples' frames into `_fbank`, padded at the stream's start."""
        frames = kaldi_fbank(self._samples.peek(count))
        self._samples.drop(FBANK_HOP_SAMPLES * len(frames))
        if not len(self._fbank):
            frames = np.concatenate([frames[:1]] * _START_REPEATS + [frames])
        self._fbank = np.concatenate([self._fbank, frames])

    def _encode(self, fbank: Samples, *, last: bool) -> Steps[EncoderChunk, LinguisticReply, Codes]:
        stacks = np.lib.stride_tricks.sliding_window_view(fbank, (_STACKED_FRAMES, FBANK_BINS))[
            ::_STRIDE_FRAMES, 0
        ]
        cmvn = self._tokenizer.cmvn
        frames = torch.from_numpy((stacks.reshape(-1, _INPUT_SIZE) + cmvn.shift) * cmvn.scale)
        reply = yield EncoderChunk(frames, self._state)
        self._state = reply.encoded.after
        if self._windows is not None:
            self._windows.append(Window(reply.encoded.states, frames, last))
        return reply.codes


def read_cmvn(path: Path) -> Cmvn:
    """Shift and scale from Kaldi's nnet text (`am.mvn`).

    Raises:
        BundleError: the file is missing, or has no `<AddShift>` and `<Rescale>` of 560 numbers.
    """
    require_file(path, "the linguistic tokenizer's feature statistics")
    try:
        words = path.read_text(encoding="utf-8").split()
        return Cmvn(*(_numbers_after(words, tag) for tag in ("<AddShift>", "<Rescale>")))
    except (ValueError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} does not hold <AddShift> and <Rescale>: {error}") from error


def _numbers_after(words: list[str], tag: str) -> Samples:
    start = words.index("[", words.index(tag)) + 1
    numbers = np.array(words[start : words.index("]", start)], dtype=np.float32)
    if numbers.size != _INPUT_SIZE or not np.isfinite(numbers).all():
        raise ValueError(f"{tag} has {numbers.size} usable numbers, not {_INPUT_SIZE}")
    return numbers


def _read_settings(file: Path) -> dict[str, Any]:
    """`encoder_conf` of the published config.yaml, the rest of which must be what is built here."""
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        frontend, encoder, settings = (
            config[key] for key in ("frontend_conf", "encoder", "encoder_conf")
        )
        differing = [key for key, value in _FRONTEND.items() if frontend[key] != value]
        settings = dict(settings)
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file} is not a FunASR config: {error!r}") from error
    if differing:
        raise BundleError(f"{file}: frontend_conf differs from Paraformer's in {differing}")
    if encoder != "SANMEncoderChunkOpt" or settings.get("input_layer") != "pe_online":
        raise BundleError(f"{file} is not for SANMEncoderChunkOpt with input_layer pe_online")
    return settings


def _read_centres(path: Path, width: int) -> torch.Tensor:
    require_file(path, "the linguistic codebook")
    try:
        centres = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise BundleError(f"the linguistic codebook cannot be read: {path}: {error}") from error
    if centres.shape != (LINGUISTIC_CODES, width):
        raise BundleError(
            f"{path} has shape {list(centres.shape)}; "
            f"the encoder needs [{LINGUISTIC_CODES}, {width}]"
        )
    return torch.from_numpy(np.asarray(centres, np.float32))
