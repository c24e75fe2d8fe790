"""Paraformer-online's own predictor and decoder on the states of its encoder.

Step-Audio's tokenizer is the encoder of this recogniser and reads each frame at once, when it is
the newest of a window of nine; the recogniser reads it five frames later, when the window has shown
what follows (SPEC 2). The windows are the same. FunASR's classes do the work:

    window [5 + new, width] -> CifPredictorV2: when has a piece been said? -> [n, width]
                            -> ParaformerSANMDecoder, which looks at the window -> [n, pieces]

FunASR's streaming class (`ParaformerStreaming.generate_chunk`) gives the same ids. Its text is put
together as its `sentence_postprocess` does it, but as a stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
import yaml
from torch import Tensor

from aqaa.models.errors import BundleError
from aqaa.models.weights import load_state_dict, require_file
from aqaa.tokenizers.funasr_encoder import (
    CHUNK_FRAMES,
    WINDOW_BACK,
    ChunkEncoder,
    import_funasr,
    load_part,
)
from aqaa.tokenizers.transcriber import (
    FRAME_SECONDS,
    Piece,
    TranscriptStream,
    Window,
    WindowOrTail,
    is_han,
    read_pieces,
)

# FunASR's documented streaming setting: the decoder attends to the window and to one chunk more.
DECODER_LOOK_BACK_CHUNKS = 1
SILENT = frozenset({"<blank>", "<s>", "</s>", "<unk>", "<OOV>"})


class ParaformerTranscriber:
    """Predictor and decoder with their weights; opens streams."""

    def __init__(
        self, encoder: ChunkEncoder, predictor: Any, decoder: Any, pieces: list[str], device: str
    ) -> None:
        self.encoder = encoder
        self.predictor = predictor
        self.decoder = decoder
        self.pieces = pieces
        self.device = device

    @classmethod
    def load(
        cls, folder: Path, encoder: ChunkEncoder, device: str = "cpu"
    ) -> ParaformerTranscriber:
        """Read the published folder whose encoder this is.

        Raises:
            BundleError: a file is missing or damaged, or holds no such recogniser.
            MissingDependencyError: FunASR is not installed.
        """
        pieces = list(read_pieces(folder / "tokens.json"))
        predictor_settings, decoder_settings = _read_settings(folder / "config.yaml")
        state = load_state_dict(folder / "model.pt", "the recogniser")
        width = encoder.output_size
        try:
            predictor = load_part(
                import_funasr("funasr.models.paraformer.cif_predictor").CifPredictorV2,
                "predictor",
                predictor_settings,
                state,
            )
            decoder = load_part(
                import_funasr("funasr.models.paraformer.decoder").ParaformerSANMDecoder,
                "decoder",
                {**decoder_settings, "vocab_size": len(pieces), "encoder_output_size": width},
                state,
            )
        except BundleError as error:
            raise BundleError(f"{folder}: {error}") from error
        # The predictor walks frame by frame in Python: on an accelerator each step would wait.
        return cls(encoder, predictor, decoder.to(device), pieces, device)

    @property
    def name(self) -> str:
        """What it is, in words."""
        return f"Paraformer's own predictor and decoder, {len(self.pieces)} pieces"

    @property
    def weights(self) -> int:
        """How many it has, the encoder's not among them."""
        parts = (self.predictor, self.decoder)
        return sum(p.numel() for part in parts for p in part.parameters())

    def stream(self, *, live: bool = False) -> ParaformerStream:
        """A new stream; cheap. `live` or not: its pieces are never in doubt."""
        return ParaformerStream(self)


class ParaformerStream(TranscriptStream):
    """Pieces as the encoder's windows come: of frames that are five behind the newest."""

    def __init__(self, transcriber: ParaformerTranscriber) -> None:
        super().__init__()
        self._transcriber = transcriber
        self._fires: dict[str, Any] = {}
        self._decoded: dict[str, Any] = {
            "decode_fsmn": None,
            "decoder_chunk_look_back": DECODER_LOOK_BACK_CHUNKS,
            "opt": None,
            "chunk_size": [0, CHUNK_FRAMES, WINDOW_BACK],
        }
        self._frame = -WINDOW_BACK  # of the next window's first state, in frames of the stream
        self._since = 0  # the frame at which the piece that is being said began
        self._spelling = PieceSpelling()

    def _copy_state(self, original: Self) -> None:
        self.__dict__.update(original.__dict__)
        self._fires = dict(original._fires)
        layers, memories = original._decoded["opt"], original._decoded["decode_fsmn"]
        self._decoded = {
            **original._decoded,
            "opt": None if layers is None else [dict(layer) for layer in layers],
            "decode_fsmn": None if memories is None else list(memories),
        }
        self._spelling = original._spelling.copy()

    @torch.inference_mode()
    def _recognise(self, window: WindowOrTail) -> list[Piece]:
        if isinstance(window, Window):
            last, states = window.last, window.states
        elif self._frame == -WINDOW_BACK:
            return []  # nothing was heard
        else:
            last, states = True, self._transcriber.encoder.tail(window.state)
        pieces = self._decode(states, last)
        self._frame += CHUNK_FRAMES
        return pieces + self._spelling.end() if last else pieces

    def _decode(self, states: Tensor, last: bool) -> list[Piece]:
        transcriber = self._transcriber
        # Made here, in the executor: a new stream computes nothing.
        self._fires = self._fires or {
            "chunk_size": [0, CHUNK_FRAMES, WINDOW_BACK],
            "cif_hidden": torch.zeros(1, 1, transcriber.encoder.output_size),
            "cif_alphas": torch.zeros(1, 1),
        }
        seen = states.cpu()[None]
        spans = self._spans(seen[0], last)
        embeds = transcriber.predictor.forward_chunk(seen, self._fires, is_final=last)[0]
        if not spans:
            return []
        device = transcriber.device
        logits = transcriber.decoder.forward_chunk(
            states.to(device)[None], embeds.to(device), self._decoded
        )
        best = torch.log_softmax(logits[0], -1).max(-1)
        pieces: list[Piece] = []
        for index, logprob, (start, end) in zip(
            best.indices.tolist(), best.values.tolist(), spans, strict=True
        ):
            piece = Piece(transcriber.pieces[index], start, end, logprob)
            if piece.text not in SILENT:
                pieces += self._spelling.push(piece)
        return pieces

    def _spans(self, states: Tensor, last: bool) -> list[tuple[float, float]]:
        """When the pieces that are about to fire were said, in seconds.

        The predictor adds up a weight for each frame and fires whenever the sum passes its
        threshold, but keeps no times.
        """
        predictor = self._transcriber.predictor
        context = torch.relu(predictor.cif_conv1d(predictor.pad(states.T[None]))).transpose(1, 2)
        weights = torch.sigmoid(predictor.cif_output(context))[0, :, 0]
        weights = torch.relu(weights * predictor.smooth_factor - predictor.noise_threshold)
        counted = weights.tolist() if last else weights[:CHUNK_FRAMES].tolist()
        if last:
            counted.append(predictor.tail_threshold)
        total, spans = self._fires["cif_alphas"], []
        for frame, weight in enumerate(counted, self._frame):
            total = total + torch.tensor(weight)
            if total < predictor.threshold:
                continue
            total = total - predictor.threshold
            begin, end = max(0, self._since), max(0, frame + 1)
            spans.append((begin * FRAME_SECONDS, end * FRAME_SECONDS))
            self._since = frame + 1
        return spans


class PieceSpelling:
    """Text of pieces, as FunASR's `sentence_postprocess` writes it, piece by piece.

    A piece that ends in `@@` is the beginning of a word. Words of letters have blanks between them,
    Chinese characters and digits have none. Letters that were spelled out one after the other are
    an abbreviation: "a i" is "AI". A lone letter therefore waits for what follows it.
    """

    def __init__(self) -> None:
        self._after_word = False
        self._inside_word = False
        self._letter: Piece | None = None  # waits
        self._abbreviating = False

    def copy(self) -> PieceSpelling:
        """An independent copy."""
        other = PieceSpelling()
        other.__dict__.update(self.__dict__)  # every value is replaced, never written to
        return other

    def push(self, piece: Piece) -> list[Piece]:
        """The written form of what is known by now."""
        if self._is_lone_letter(piece):
            return self._spell_out(piece)
        before = self.end()
        self._abbreviating = False
        text = piece.text.replace("@@", "")
        in_letters = all(one.isalpha() or one == "'" for one in text) and not _joins(text[:1])
        blank = self._after_word and not _joins(text[:1])
        self._inside_word = in_letters and "@@" in piece.text
        self._after_word = in_letters and not self._inside_word
        return [*before, _written(piece, text, blank=blank)]

    def end(self) -> list[Piece]:
        """The letter that waited, if one did."""
        letter, self._letter = self._letter, None
        return [letter] if letter is not None else []

    def _is_lone_letter(self, piece: Piece) -> bool:
        text = piece.text
        return len(text) == 1 and text.isascii() and text.isalpha() and not self._inside_word

    def _spell_out(self, piece: Piece) -> list[Piece]:
        upper = _written(piece, piece.text.upper(), blank=False)
        if self._abbreviating:
            return [upper]
        if self._letter is None:
            self._letter = _written(piece, piece.text, blank=self._after_word)
            self._after_word = True
            return []
        first = self._letter
        self._letter, self._abbreviating = None, True
        return [_written(first, first.text.upper(), blank=False), upper]


def _joins(character: str) -> bool:
    """Whether FunASR writes this without blanks around it."""
    return is_han(character) or "0" <= character <= "9" or character == "@"


def _written(piece: Piece, text: str, *, blank: bool) -> Piece:
    return Piece(f" {text}" if blank else text, piece.start, piece.end, piece.logprob)


def _read_settings(file: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`predictor_conf` and `decoder_conf` of the published config.yaml."""
    require_file(file, "the recogniser's config")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        kinds = config["predictor"], config["decoder"]
        settings = dict(config["predictor_conf"]), dict(config["decoder_conf"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{file} describes no recogniser: {error!r}") from error
    if kinds != ("CifPredictorV2", "ParaformerSANMDecoder"):
        raise BundleError(f"{file}: {kinds} are not Paraformer's predictor and decoder")
    return settings
