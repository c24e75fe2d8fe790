"""The stages of the vocoder's recipe and the files that they leave for each other."""

from __future__ import annotations

import copy
import json
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

from aqaa.recipe.decoder.prepare import codebooks, encode
from aqaa.recipe.evaluate.judges import Listener, word_errors
from aqaa.recipe.training import Rates, between
from aqaa.recipe.vocoder.corpus import Corpus, Sentence, load_corpus
from aqaa.recipe.vocoder.evaluate import row, table
from aqaa.recipe.vocoder.pack import pack, pack_voices
from aqaa.recipe.vocoder.pairs import pieces
from aqaa.recipe.vocoder.settings import HOP, layout, settings
from aqaa.recipe.vocoder.train_flow import (
    render,
    seed_embeddings,
    speaker_embedding,
    train_flow,
    train_prior,
)
from aqaa.recipe.vocoder.train_hift import begin_f0, speak, train_f0, train_generator
from aqaa.recipe.vocoder.voicing import VOICES
from aqaa.vocoder.flow import Flow
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.loading import load_flow, load_hift

log = logging.getLogger(__name__)
F0_STEPS, HIFT_STEPS, PRIOR_STEPS, FLOW_STEPS = 800, 9000, 1500, 13_000
F0_TUNE_STEPS, TUNE_STEPS = 1200, 6000
DRILL_RATES = Rates(peak=5e-4, muon=0.005)
TUNE_RATES = Rates(peak=3e-4)  # of the fine-tuning: the generator knows its work by then
STEPS, TEMPERATURE = 1, 0.0  # how the mels for fine-tuning are made, as in the bundle


@dataclass(frozen=True)
class Drill:
    """A round of drilling.

    Attributes:
        steps: of training.
        stress: how much oftener a sentence is drawn in a voice in which it was misheard before.
        kept: share of the weights before the round in those after it.
    """

    steps: int
    stress: float
    kept: float = 0.0


DRILLS = (Drill(6000, stress=4.0), Drill(500, stress=16.0, kept=0.5))


@dataclass(frozen=True)
class Recipe:
    """Where the stages meet: files in `folder`; what has no checkpoint there is begun afresh, or
    `from_bundle`, with the weights that the bundle has.
    """

    folder: Path
    from_bundle: bool = False

    def corpus(self) -> Corpus:
        """All sentences, recorded once; the bundle's tokenizers hear them."""
        return load_corpus(self.folder / "corpus.pt", encode)

    def flow(self, name: str = "drilled") -> Flow:
        """The flow of checkpoint `name`.pt, ready for inference."""
        model = Flow(settings().flow)
        self._fill(model, name)
        return model

    def hift(self, name: str = "tuned") -> Hift:
        """The generator of checkpoint `name`.pt, ready for inference."""
        model = Hift(settings().hift)
        self._fill(model, name)
        return model

    def first_flow(self) -> Flow:
        """The flow before it is drilled: the flow stage's, or the bundle's."""
        return _bundled_flow() if self._begins_with_bundle("flow") else self.flow("flow")

    def first_hift(self) -> Hift:
        """The generator before it has heard this flow: the hift stage's, or the bundle's."""
        return _bundled_hift() if self._begins_with_bundle("hift") else self.hift("hift")

    def _begins_with_bundle(self, name: str) -> bool:
        return self.from_bundle and not (self.folder / f"{name}.pt").exists()

    def _fill(self, model: nn.Module, name: str) -> None:
        saved = torch.load(self.folder / f"{name}.pt", weights_only=True)
        model.load_state_dict(saved["model"])
        model.eval()


def _bundled_flow() -> Flow:
    model = Flow(settings().flow)
    model.load_state_dict(load_flow(layout(), settings().flow).state_dict())
    return model.eval()


def _bundled_hift() -> Hift:
    model = Hift(settings().hift)
    model.load_state_dict(load_hift(layout(), settings().hift).state_dict())
    return model.eval()


def hift_stage(recipe: Recipe) -> None:
    """Mel to wave: the f0 predictor, then the generator, on recorded mels."""
    heard = [r for sentence in recipe.corpus().training for r in sentence.voices.values()]
    model = Hift(settings().hift)
    begin_f0(model)
    train_f0(model, [(r.mel, r.f0) for r in heard], F0_STEPS, recipe.folder / "f0.pt")
    sounds = [(r.mel, r.f0, r.wave) for r in heard]
    train_generator(model, sounds, HIFT_STEPS, recipe.folder / "hift.pt")


def flow_stage(recipe: Recipe) -> None:
    """Tokens to mel."""
    data = pieces(recipe.corpus().training)
    if recipe.from_bundle:
        model = _bundled_flow()
    else:
        model = Flow(settings().flow)
        seed_embeddings(model, codebooks())
        train_prior(model, data, PRIOR_STEPS, recipe.folder / "prior.pt")
    train_flow(model, data, FLOW_STEPS, recipe.folder / "flow.pt")


def drill_stage(recipe: Recipe) -> None:
    """The flow goes on in rounds; what is misheard of it as it is then is drawn oftener."""
    flow, hift = recipe.first_flow(), recipe.first_hift()
    training = recipe.corpus().training
    for number, drill in enumerate(DRILLS, start=1):
        misheard = _misheard(flow, hift, training, recipe.folder / f"misheard{number}.json")
        data = pieces(training, dict.fromkeys(misheard, drill.stress))
        before = copy.deepcopy(flow)
        train_flow(flow, data, drill.steps, recipe.folder / f"drill{number}.pt", DRILL_RATES)
        flow = between(flow, before, drill.kept)
    torch.save({"model": flow.state_dict()}, recipe.folder / "drilled.pt")


def _misheard(
    flow: Flow, hift: Hift, sentences: list[Sentence], file: Path
) -> list[tuple[str, str]]:
    """The (text, voice) pairs of which a word is misheard; kept in `file`, for a resumed run."""
    if not file.exists():
        listener, found = Listener(), []
        for sentence in track(sentences, "listening"):
            for voice in sentence.voices:
                heard = listener.hear(_sound(hift, _mel(flow, sentence.tokens, voice)))
                if word_errors(sentence.text, heard)[0]:
                    found.append((sentence.text, voice))
                    log.info("%s: %s | heard: %s", voice, sentence.text, heard)
        log.info("misheard: %d of %d", len(found), sum(len(s.voices) for s in sentences))
        file.write_text(json.dumps(found, indent=0), encoding="utf-8")
    return [(text, voice) for text, voice in json.loads(file.read_text(encoding="utf-8"))]


def tune_stage(recipe: Recipe) -> None:
    """The generator, its f0 predictor first, goes on with the flow's mels of the corpus."""
    flow, hift = recipe.flow(), recipe.first_hift()
    sounds = []
    for sentence in track(recipe.corpus().training, "rendering"):
        for voice, heard in sentence.voices.items():
            mel = _mel(flow, sentence.tokens, voice)[:, : heard.mel.shape[1]]
            frames = mel.shape[1]
            sounds.append((mel, heard.f0[:frames], heard.wave[: HOP * frames]))
    pitches = [(mel, f0) for mel, f0, _ in sounds]
    train_f0(hift, pitches, F0_TUNE_STEPS, recipe.folder / "f0_tuned.pt", TUNE_RATES)
    train_generator(hift, sounds, TUNE_STEPS, recipe.folder / "tuned.pt", TUNE_RATES)


def pack_stage(recipe: Recipe) -> None:
    """Weights and voices into the bundle."""
    pack(recipe.flow(), recipe.hift())
    pack_voices(recipe.corpus())


def evaluate_stage(recipe: Recipe) -> None:
    """The log's table: what was trained on, and what was not, recorded, copied, from tokens."""
    flow, hift = recipe.flow(), recipe.hift()
    corpus = recipe.corpus()
    known = corpus.training[:: len(corpus.training) // len(corpus.judged)]

    def recorded(sentence: Sentence, voice: str) -> NDArray[np.float32]:
        wave: NDArray[np.float32] = sentence.voices[voice].wave.numpy()
        return wave

    def copied(sentence: Sentence, voice: str) -> NDArray[np.float32]:
        return _sound(hift, sentence.voices[voice].mel)

    def spoken(sentence: Sentence, voice: str) -> NDArray[np.float32]:
        return _sound(hift, _mel(flow, sentence.tokens, voice))

    listener, rows = Listener(), []
    for what, sentences in (("known", known), ("unseen", corpus.judged)):
        for voice in VOICES:
            for make in (recorded, copied, spoken):
                items = [(s.text, partial(make, s, voice)) for s in sentences]
                rows.append(row(f"{what}, {voice} {make.__name__}", items, listener))
    log.info("\n%s", table(rows))


def _mel(flow: Flow, tokens: Tensor, voice: str) -> Tensor:
    speaker = speaker_embedding(voice)
    return render(flow, tokens, speaker, steps=STEPS, temperature=TEMPERATURE)


@torch.inference_mode()
def _sound(hift: Hift, mel: Tensor) -> NDArray[np.float32]:
    wave: NDArray[np.float32] = speak(hift, mel[None])[0].numpy()
    return wave


STAGES: dict[str, Callable[[Recipe], None]] = {
    "hift": hift_stage,
    "flow": flow_stage,
    "drill": drill_stage,
    "tune": tune_stage,
    "pack": pack_stage,
    "evaluate": evaluate_stage,
}
