"""The stages of the vocoder's recipe and the files that they leave for each other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor, nn

from aqaa.models.recipe.decoder.prepare import codebooks, encode_all
from aqaa.models.recipe.training import Rates
from aqaa.models.recipe.vocoder.corpus import Recording, held_out, load_corpus
from aqaa.models.recipe.vocoder.evaluate import row, table
from aqaa.models.recipe.vocoder.pack import pack, pack_voices
from aqaa.models.recipe.vocoder.pairs import pieces, tokenise
from aqaa.models.recipe.vocoder.settings import HOP, layout, settings
from aqaa.models.recipe.vocoder.train_flow import (
    render,
    seed_embeddings,
    speaker_embedding,
    train_flow,
    train_prior,
)
from aqaa.models.recipe.vocoder.train_hift import speak, train_f0, train_generator
from aqaa.vocoder.flow import Flow
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.loading import load_flow, load_hift

log = logging.getLogger(__name__)
F0_STEPS, HIFT_STEPS, PRIOR_STEPS, FLOW_STEPS, TUNE_STEPS = 800, 1300, 1500, 4600, 1200
TUNE_RATES = Rates(peak=3e-4)  # of the fine-tuning: the generator knows its work by then
STEPS, TEMPERATURE = 1, 0.0  # how the mels for fine-tuning are made, as in the bundle


@dataclass(frozen=True)
class Recipe:
    """Where the stages meet: files in `folder`; what has no checkpoint there is begun afresh, or
    `from_bundle`, with the weights that the bundle has.
    """

    folder: Path
    from_bundle: bool = False

    def corpus(self) -> list[Recording]:
        """All recordings, measured once."""
        return load_corpus(self.folder / "corpus.pt")

    def tokens(self) -> list[list[int]]:
        """The corpus as the bundle's tokenizers hear it, heard once."""
        file = self.folder / "tokens.pt"
        if not file.exists():
            torch.save(tokenise(self.corpus(), encode_all), file)
        tokens: list[list[int]] = torch.load(file, weights_only=True)
        return tokens

    def flow(self) -> Flow:
        """The trained flow, ready for inference."""
        model = Flow(settings().flow)
        self._fill(model, "flow")
        return model

    def hift(self, name: str) -> Hift:
        """The generator of checkpoint `name`.pt, ready for inference."""
        model = Hift(settings().hift)
        self._fill(model, name)
        return model

    def _fill(self, model: nn.Module, name: str) -> None:
        saved = torch.load(self.folder / f"{name}.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        model.eval()


def hift_stage(recipe: Recipe) -> None:
    """Mel to wave: the f0 predictor, then the generator, on recorded mels."""
    training, _ = held_out(recipe.corpus())
    model = Hift(settings().hift)
    train_f0(model, training, F0_STEPS, recipe.folder / "f0.pt")
    pairs = [(r.mel, r.wave) for r in training if r.mood == "plain"]  # moods end at 8 kHz
    train_generator(model, pairs, HIFT_STEPS, recipe.folder / "hift.pt")


def flow_stage(recipe: Recipe) -> None:
    """Tokens to mel."""
    recordings, _ = held_out(recipe.corpus())
    tokens, _ = held_out(recipe.tokens())
    model = Flow(settings().flow)
    data = pieces(recordings, tokens)
    if recipe.from_bundle:
        model.load_state_dict(load_flow(layout(), settings().flow).state_dict())
    else:
        seed_embeddings(model, codebooks())
        train_prior(model, data, PRIOR_STEPS, recipe.folder / "prior.pt")
    train_flow(model, data, FLOW_STEPS, recipe.folder / "flow.pt")


def tune_stage(recipe: Recipe) -> None:
    """The generator goes on with the mels that the flow makes of the corpus's own tokens."""
    flow = recipe.flow()
    if recipe.from_bundle:
        hift = Hift(settings().hift)
        hift.load_state_dict(load_hift(layout(), settings().hift).state_dict())
    else:
        hift = recipe.hift("hift")
    training, _ = held_out(list(zip(recipe.corpus(), recipe.tokens(), strict=True)))
    pairs = []
    for recording, tokens in track(training, "rendering"):
        if tokens and recording.mood == "plain":
            speaker = speaker_embedding(recording.utterance.voice)
            mel = render(flow, tokens, speaker, steps=STEPS, temperature=TEMPERATURE)[
                :, : recording.mel.shape[1]
            ]
            pairs.append((mel, recording.wave[: HOP * mel.shape[1]]))
    train_generator(hift, pairs, TUNE_STEPS, recipe.folder / "tuned.pt", TUNE_RATES)


def pack_stage(recipe: Recipe) -> None:
    """Weights and voices into the bundle."""
    pack(recipe.flow(), recipe.hift("tuned"))
    pack_voices(recipe.corpus(), recipe.tokens())


def evaluate_stage(recipe: Recipe) -> None:
    """The log's table: held-out sentences of joe as recorded, copied, and spoken from tokens."""
    flow, hift = recipe.flow(), recipe.hift("tuned")
    _, judged = held_out(list(zip(recipe.corpus(), recipe.tokens(), strict=True)))
    joe = [x for x in judged if x[0].utterance.voice == "joe" and x[0].mood == "plain" and x[1]]

    @torch.inference_mode()
    def voiced(mel: Tensor) -> NDArray[np.float32]:
        wave: NDArray[np.float32] = speak(hift, mel[None], hift.f0(mel[None]))[0].numpy()
        return wave

    def spoken(tokens: list[int], voice: str) -> NDArray[np.float32]:
        speaker = speaker_embedding(voice)
        return voiced(render(flow, tokens, speaker, steps=STEPS, temperature=TEMPERATURE))

    rows = [
        row("joe recorded", [(r.utterance.text, r.wave.numpy) for r, _ in joe]),
        row("joe copied", [(r.utterance.text, partial(voiced, r.mel)) for r, _ in joe]),
    ]
    for voice in ("joe", "alpha"):
        items = [(r.utterance.text, partial(spoken, tokens, voice)) for r, tokens in joe]
        rows.append(row(f"{voice} from joe's tokens", items))
    log.info("\n%s", table(rows))


STAGES: dict[str, Callable[[Recipe], None]] = {
    "hift": hift_stage,
    "flow": flow_stage,
    "tune": tune_stage,
    "pack": pack_stage,
    "evaluate": evaluate_stage,
}
