"""The transcriber that a bundle asks for."""

from __future__ import annotations

from aqaa.models.bundle import Bundle
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.prefix_beam import Weighing
from aqaa.tokenizers.transcriber_ctc import CtcTranscriber
from aqaa.tokenizers.transcriber_paraformer import ParaformerTranscriber


def load_transcriber(
    bundle: Bundle, tokenizer: LinguisticTokenizer, device: str = "cpu"
) -> CtcTranscriber | ParaformerTranscriber | None:
    """What goes on from `tokenizer`'s encoder; None where the bundle has no transcriber.

    Raises:
        BundleError: a file is missing, damaged or does not fit; the message names it.
        MissingDependencyError: FunASR is not installed.
    """
    if bundle.transcriber is None:
        return None
    match bundle.transcriber.kind:
        case "paraformer":
            folder = bundle.tokenizer.path / bundle.tokenizer.linguistic
            return ParaformerTranscriber.load(folder, tokenizer.encoder, device)
        case "ctc":
            config, width = bundle.transcriber, tokenizer.encoder.frame_width
            weighing = Weighing(config.language_weight, config.piece_bonus)
            return CtcTranscriber.load(config.path, weighing, width, device)
