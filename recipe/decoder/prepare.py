"""Everything that the decoder's training reads: text pieces, tokens of questions and of answers."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.progress import track

from aqaa.models.bundle import TokenizerConfig, load_bundle, nano_path
from aqaa.models.errors import BundleError
from aqaa.models.groups import SEMANTIC_CODES
from aqaa.recipe.decoder.clips import (
    DISTORTED,
    ROUGH,
    Tokens,
    add_answers,
    next_shard,
    rows_of,
    save,
    tokenise_answers,
    tokenise_noises,
    tokenise_questions,
    tokenised,
)
from aqaa.recipe.decoder.corpus import said_once
from aqaa.recipe.decoder.recite import recite
from aqaa.recipe.decoder.renderings import choose
from aqaa.recipe.decoder.text import has_pieces, train_pieces
from aqaa.recipe.domain.load import Domain, load_domain
from aqaa.recipe.domain.replies import all_answers
from aqaa.recipe.hearing import Hearing
from aqaa.recipe.speech.cache import Utterance, cached_path, work_dir
from aqaa.recipe.speech.corpus import spoken, untold
from aqaa.recipe.speech.voices import TEACHER, VOICES, Wave
from aqaa.tokenizers.dual import DualTokenizer
from aqaa.tokenizers.interleave import interleave
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.semantic import SemanticTokenizer

log = logging.getLogger(__name__)
SHARD = 200  # clips in one file
SPOKEN_MEANWHILE, SPOKEN_NOW = 150, 6  # clips at the most that are heard more at a time
RENDERED_NOW = 60  # answers to tools at the most that get their sound at a time
NOISES = 200
TAKES = 8  # of every clip, each through a channel of its own; the last is `ROUGH`


def pieces_path() -> Path:
    """The text model, where the bundle has it."""
    return nano_path() / "decoder" / "tokenizer.model"


def folder() -> Path:
    """Where the tokens and the checkpoint are."""
    return work_dir() / "decoder"


@functools.cache
def _encoder() -> Callable[[NDArray[np.float32]], list[int]]:
    """Audio tokens of a 16 kHz wave by nano's tokenizers; loaded once a process."""
    torch.set_num_threads(1)
    config = TokenizerConfig(path=nano_path() / "Step-Audio-Tokenizer", normalise=False)
    return DualTokenizer(
        LinguisticTokenizer.load(config),
        SemanticTokenizer.load(config),
        audio_offset=0,
        normalise=False,
    ).encode


def encode(wave: Wave) -> list[int]:
    """Audio tokens of one wave (16 kHz), to the last id as the decoder's answers have them."""
    return _encoder()(wave)


@functools.cache
def _hearing() -> Hearing:
    torch.set_num_threads(1)
    return Hearing(nano_path() / "Step-Audio-Tokenizer")


def encode_all(waves: Sequence[Wave]) -> list[list[int]]:
    """Audio tokens of many waves, in batches: what `_encoder` gives, but for a silent tail."""
    pairs = _hearing().both(waves)
    return [interleave(first.tolist(), second.tolist(), 0) for first, second in pairs]


def _shard(job: tuple[Sequence[Utterance], Path, float]) -> None:
    tokenise_questions(*job, encode_all)


def former() -> Path:
    """Where a decoder is kept whose pieces were replaced: its weights and those pieces."""
    return folder() / "former"


def recited() -> Path:
    """Where the answers of that decoder are."""
    return folder() / "recited.npz"


def make_pieces(domain: Domain, bundle: Path) -> None:
    """New pieces in the decoder of `bundle`; nothing if those that are there can spell calls.

    What they replace is kept, the weights (`former`) and what these say (`recited`).
    """
    path = bundle / "decoder" / pieces_path().name
    if has_pieces(path):
        return
    if path.exists():
        shutil.copytree(path.parent, former(), dirs_exist_ok=True)
        said = recite(load_bundle(bundle), domain)
        save([(text, "plain", tokens) for text, tokens in said.items()], recited())
    train_pieces(domain, path)


def wanted_answers(domain: Domain, answers: int | None) -> dict[str, Utterance | Tokens]:
    """Every answer with what is to be heard of it: see `prepare`."""
    known = {text: codes for text, _, codes in rows_of(recited())} if recited().exists() else {}
    own = domain.answers()
    household = list(dict.fromkeys(text for text in all_answers() if text not in own))
    chosen = choose([text for text in own if text not in known])
    if answers is None:
        chosen |= choose(household)
    else:
        chosen |= {text: Utterance(text, TEACHER) for text in household[:answers]}
    return {**known, **chosen}


def prepare(processes: int, takes: int = TAKES, answers: int | None = None) -> None:
    """Makes pieces if there are none or the first edition's, answers, and shards of questions.

    Args:
        processes: that tokenise.
        takes: of every clip.
        answers: to tools, so many of them and as the teacher says them first; None: all, each in
            its clearest rendering.
    """
    domain = load_domain()
    folder().mkdir(parents=True, exist_ok=True)
    make_pieces(domain, nano_path())
    tokenise_answers(wanted_answers(domain, answers), folder() / "answers.npz", encode)
    hear_noises()
    questions = {*domain.questions(), *domain.variants(), *domain.outside, *said_once()}
    done = tokenised(folder())
    asked = [u for u in spoken() if u.text in questions]
    first = next_shard(folder())
    jobs: list[tuple[list[Utterance], Path, float]] = []
    for take in range(takes):
        todo = [u for u in asked if done[u] <= take]
        distorted = ROUGH if take == takes - 1 else DISTORTED
        for start in range(0, len(todo), SHARD):
            path = folder() / f"questions-{first + len(jobs):03}.npz"
            jobs.append((todo[start : start + SHARD], path, distorted))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in track(pool.imap_unordered(_shard, jobs), "tokenising questions", total=len(jobs)):
            pass


def learn_more() -> None:
    """What a training that goes on reads more of as it goes: clips, answers with their sound."""
    hear_noises()
    render_more()
    hear_more()


def hear_noises() -> None:
    """Tokens of noises in which nobody speaks, if there are none yet."""
    path = folder() / "noises.npz"
    if not path.exists():
        tokenise_noises(NOISES, path, encode_all)


def render_more() -> None:
    """Some of the answers to tools that have no sound yet get it, in a fixed random order.

    Too many at once are not learned, and what was learned before suffers.
    """
    path = folder() / "answers.npz"
    known = {text for text, _, _ in rows_of(path)}
    left = [text for text in dict.fromkeys(all_answers()) if text not in known]
    random.Random(4).shuffle(left)
    if left:
        add_answers(left[:RENDERED_NOW], path, encode)
        log.info("%d answers more have their sound", len(left[:RENDERED_NOW]))


def hear_more() -> None:
    """One shard more: clips that were spoken meanwhile, and a few of human voices, spoken now.

    So a training that begins with few clips hears more as it goes, without a process beside it.
    Half of what is spoken now are questions of the domain, while there are any, half commands.
    """
    done = tokenised(folder())
    left = untold(done)
    ready = [u for u in left if cached_path(u).exists()][:SPOKEN_MEANWHILE]
    known, asked = {*ready}, {*load_domain().questions()}
    dear = [u for u in left if VOICES[u.voice].human and u not in known]
    questions = [u for u in dear if u.text in asked][: SPOKEN_NOW // 2]
    human = questions + [u for u in dear if u.text not in asked][: SPOKEN_NOW - len(questions)]
    if not ready + human:
        return
    path = folder() / f"questions-{next_shard(folder()):03}.npz"
    tokenise_questions(ready + human, path, DISTORTED, encode_all)
    log.info("heard %d clips more, %d of them spoken for it", len(ready + human), len(human))


def codebooks() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The linguistic centroids [1024, D] and the semantic codebook [4096, D'] of nano."""
    home = nano_path() / "Step-Audio-Tokenizer"
    linguistic = np.load(home / "linguistic_tokenizer.npy").astype(np.float32)
    for tensor in onnx.load(home / "speech_tokenizer_v1.onnx").graph.initializer:
        if len(tensor.dims) == 2 and tensor.dims[1] == SEMANTIC_CODES:  # stored transposed (SPEC 3)
            return linguistic, numpy_helper.to_array(tensor).T.astype(np.float32)
    raise BundleError(f"no codebook in {home}/speech_tokenizer_v1.onnx: export the tokenizer anew")
