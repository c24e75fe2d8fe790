"""A CTC network on what the linguistic encoder emits and what it heard: causal, streaming.

    states and features [T, width] -> Linear -> blocks of (causal depthwise convolution,
    feed-forward) -> Linear -> T * rows log probabilities over the pieces -> `prefix_beam`

A frame is the encoder's newest state, of which a token is made, and beside it the features that it
was made of: a small encoder, taught to make tokens, forgets much that tells words apart. The
network sees nothing that follows a frame: CTC leaves it free to say a piece some frames after its
sound, and the end of an utterance is followed by `SILENCE` zero frames in which the last pieces
come out. Training must pad its clips in the same way.

Files: `model.safetensors` with this module's tensors (any float type), from whose shapes all sizes
are read, `language.safetensors` (`language_model`), and `pieces.json`, a list of strings: first the
blank, then pieces in SentencePiece's manner, where `▁` stands for the blank that begins a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqaa.models.errors import BundleError
from aqaa.models.weights import load_state_dict
from aqaa.tokenizers.language_model import LanguageModel
from aqaa.tokenizers.prefix_beam import SOON, SURE, PrefixBeam, Weighing
from aqaa.tokenizers.transcriber import (
    FRAME_SECONDS,
    Piece,
    TranscriptStream,
    Window,
    WindowOrTail,
    read_pieces,
)

SILENCE = 6  # zero frames after an utterance's end, 360 ms


class CtcBlock(nn.Module):
    """x + feed_forward(norm(causal depthwise convolution of x)), on [B, T, inner]."""

    def __init__(self, inner: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inner, inner, kernel, groups=inner)
        self.norm = nn.LayerNorm(inner)
        self.w_1 = nn.Linear(inner, 2 * inner)
        self.w_2 = nn.Linear(2 * inner, inner)

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """`before` [B, kernel - 1, inner]: the inputs before `x`; returns also those for the next.

        Before an utterance they are zeros.
        """
        seen = torch.cat([before, x], 1)
        mixed = self.conv(seen.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.w_2(F.gelu(self.w_1(self.norm(mixed))))
        return out, seen[:, seen.shape[1] - before.shape[1] :]


class CtcHead(nn.Module):
    """The network; training and serving share it."""

    def __init__(
        self, width: int, inner: int, kernel: int, blocks: int, rows: int, pieces: int
    ) -> None:
        """`rows`: of log probabilities for each frame of 60 ms."""
        super().__init__()
        self.pieces = pieces
        self.project = nn.Linear(width, inner)
        self.blocks = nn.ModuleList([CtcBlock(inner, kernel) for _ in range(blocks)])
        self.spell = nn.Linear(inner, rows * pieces)

    def initial_state(self, batch: int = 1) -> tuple[Tensor, ...]:
        """What precedes an utterance, for every block [B, kernel - 1, inner]."""
        weight = self.project.weight
        return tuple(
            weight.new_zeros(batch, block.conv.kernel_size[0] - 1, weight.shape[0])
            for block in self.blocks
            if isinstance(block, CtcBlock)
        )

    def forward(
        self, frames: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Log probabilities [B, T * rows, pieces] of `frames` [B, T, width], and the next state.

        For training: whole utterances with `SILENCE` zero frames behind them, without a state.
        """
        before = self.initial_state(frames.shape[0]) if state is None else state
        x, after = self.project(frames), []
        for block, seen in zip(self.blocks, before, strict=True):
            x, kept = block(x, seen)
            after.append(kept)
        logits = self.spell(x).reshape(frames.shape[0], -1, self.pieces)
        return F.log_softmax(logits.float(), -1), tuple(after)


class CtcTranscriber:
    """The head and the language model, with their weights and pieces; opens streams."""

    def __init__(
        self,
        head: CtcHead,
        language: LanguageModel,
        pieces: list[str],
        weighing: Weighing,
        device: str = "cpu",
    ) -> None:
        """`language` stays on the CPU: a step of it is smaller than a copy to a device."""
        self.head = head.float().eval().to(device)
        self.language = language
        self.texts = [piece.replace("\u2581", " ") for piece in pieces]
        self.weighing = weighing
        self.device = device

    @classmethod
    def load(
        cls, folder: Path, weighing: Weighing, width: int, device: str = "cpu"
    ) -> CtcTranscriber:
        """Read a folder for an encoder whose `frame_width` is `width`.

        Raises:
            BundleError: a file is missing or damaged, or does not fit the others or the encoder.
        """
        pieces = list(read_pieces(folder / "pieces.json"))
        state = load_state_dict(folder / "model.safetensors", "the transcriber's head")
        try:
            head = _head_of(state, len(pieces))
        except (KeyError, ValueError, RuntimeError) as error:
            raise BundleError(f"{folder} holds no CTC head: {str(error)[:400]}") from error
        if head.project.in_features != width:
            raise BundleError(
                f"{folder} is for frames of width {head.project.in_features}, not {width}"
            )
        state = load_state_dict(folder / "language.safetensors", "the transcriber's language model")
        try:
            language = LanguageModel.of(state)
        except (KeyError, ValueError, RuntimeError) as error:
            raise BundleError(f"{folder} holds no language model: {str(error)[:400]}") from error
        if language.embed.num_embeddings != len(pieces):
            raise BundleError(
                f"{folder}: the language model knows {language.embed.num_embeddings} pieces, "
                f"not {len(pieces)}"
            )
        return cls(head, language, pieces, weighing, device)

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"CTC beside the linguistic encoder, {len(self.texts)} pieces"

    @property
    def weights(self) -> int:
        """How many it has."""
        return sum(p.numel() for part in (self.head, self.language) for p in part.parameters())

    def stream(self, *, live: bool = False) -> CtcStream:
        """A new stream; cheap."""
        return CtcStream(self, live=live)


class CtcStream(TranscriptStream):
    """Pieces as the encoder's windows come, however they are cut."""

    def __init__(self, transcriber: CtcTranscriber, *, live: bool) -> None:
        super().__init__()
        self._transcriber = transcriber
        self._state = transcriber.head.initial_state()
        settling = SOON if live else SURE
        self._beam = PrefixBeam(transcriber.language, transcriber.weighing, settling)
        self._heard = False

    def _copy_state(self, original: Self) -> None:
        self.__dict__.update(original.__dict__)  # but for the beam no value is written to
        self._beam = original._beam.fork()

    def _recognise(self, window: WindowOrTail) -> list[Piece]:
        if not isinstance(window, Window):
            return self._spell(self._silence(), last=True) if self._heard else []
        self._heard = True
        device = self._transcriber.device
        states, heard = window.states[-window.new :].to(device), window.heard.to(device)
        frames = torch.cat([states, heard], -1)
        if window.last:
            frames = torch.cat([frames, self._silence()])
        return self._spell(frames, last=window.last)

    def _silence(self) -> Tensor:
        return torch.zeros(
            SILENCE, self._transcriber.head.project.in_features, device=self._transcriber.device
        )

    @torch.inference_mode()
    def _spell(self, frames: Tensor, *, last: bool) -> list[Piece]:
        rows, self._state = self._transcriber.head(frames[None], self._state)
        seconds = FRAME_SECONDS * len(frames) / rows.shape[1]
        return [
            Piece(
                self._transcriber.texts[spelt.piece],
                spelt.row * seconds,
                (spelt.row + 1) * seconds,
                spelt.logprob,
            )
            for spelt in self._beam.push(rows[0].cpu().numpy(), last=last)
        ]


def _head_of(state: Mapping[str, Tensor], pieces: int) -> CtcHead:
    inner, width = state["project.weight"].shape
    blocks = 1 + max((int(key.split(".")[1]) for key in state if key[:7] == "blocks."), default=-1)
    kernel = state["blocks.0.conv.weight"].shape[2] if blocks else 1
    rows, left = divmod(state["spell.weight"].shape[0], pieces)
    if left or not rows:
        raise ValueError(f"{state['spell.weight'].shape[0]} outputs for {pieces} pieces")
    head = CtcHead(width, inner, kernel, blocks, rows, pieces)
    head.load_state_dict(state)
    return head
