"""Training: CTC on phonemes and words, and whisper's states, from what it emits, then its codes.

First the encoder learns alone. Then 1,024 codes are placed on its output by k-means, and both are
trained on with the codes in the path (straight-through), so that what the decoder will see, the
numbers, spells the words; the codes follow as a running k-means (EMA).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from aqaa.recipe.linguistic.encoder import WindowedEncoder
from aqaa.recipe.linguistic.fbank import (
    CHUNK_FRAMES,
    CHUNK_SAMPLES,
    LFR_M,
    MELS,
    WIDTH,
    fbank,
    mel_filters,
    stack,
)
from aqaa.recipe.precision import mixed
from aqaa.recipe.speech.batches import Row, make_batch
from aqaa.recipe.speech.cache import work_dir
from aqaa.recipe.speech.guide import WIDTH as GUIDE
from aqaa.recipe.speech.guide import measure_guide
from aqaa.recipe.speech.phonemes import CLASSES, collapse, edit_distance
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.tokenizer_run import Run, Schedule
from aqaa.recipe.training import Losses
from aqaa.recipe.transcriber.head import spelt, with_silence
from aqaa.recipe.transcriber.pieces import Spelling, corpus_pieces
from aqaa.recipe.vq import Codebook
from aqaa.recipe.word_losses import guided_loss, spelling_loss
from aqaa.tokenizers.transcriber_ctc import CtcHead

WIDTH_OUT, HEADS, UNITS, BLOCKS = 256, 4, 1024, 6
CODES = 1024
WORDS = 0.3  # weight of the words beside the phonemes' 1
WORDS_HEAD = 256, 9, 3, 2  # its inner width, kernel, blocks and rows a frame
SPELLED = 2  # CTC steps per emitted frame: at 16.7 Hz speech has nearly a phoneme a frame
WARPS = tuple(round(0.9 + 0.02 * i, 2) for i in range(12))  # vocal tract lengths, 0.90 to 1.12
LENGTHS = tuple(CHUNK_SAMPLES * c for c in (13, 18, 25, 34))  # 3.1 to 8.2 s
BATCH_SECONDS = 32.0
FRAME = CHUNK_SAMPLES // CHUNK_FRAMES  # samples an emitted frame
DELAY = FRAME  # no frame sees what follows it, so it is asked for what was said a frame ago
USUAL = Schedule(steps=8500, codes_from=2300)


class Speller(nn.Module):
    """Encoder, codes, and the heads that teach them; only the first two are kept."""

    def __init__(self, spelling: Spelling) -> None:
        super().__init__()
        self.spelling = spelling
        self.encoder = WindowedEncoder(WIDTH, WIDTH_OUT, HEADS, UNITS, BLOCKS)
        self.codebook = Codebook(CODES, WIDTH_OUT)
        self.head = nn.Linear(WIDTH_OUT, SPELLED * CLASSES)
        self.guided = nn.Linear(WIDTH_OUT, GUIDE)
        self.words = CtcHead(WIDTH_OUT, *WORDS_HEAD, pieces=len(spelling.pieces))
        self.register_buffer("shift", torch.zeros(WIDTH))  # am.mvn's AddShift and Rescale
        self.register_buffer("scale", torch.ones(WIDTH))
        self.shift: Tensor
        self.scale: Tensor

    def words_loss(self, emitted: Tensor, rows: Sequence[Row]) -> Tensor:
        """CTC a piece of the words, from the emitted frames alone: these must keep them."""
        pieces, _ = self.words(with_silence(emitted))
        return spelling_loss(pieces, [spelt(row, self.spelling) for row in rows])

    def spell(self, emitted: Tensor) -> Tensor:
        """Log-probabilities [B, 2T, classes] from emitted or quantised frames [B, T, width]."""
        logits = self.head(emitted).view(emitted.shape[0], -1, CLASSES)
        return F.log_softmax(logits, -1)


def features(waves: Tensor, filters: Tensor | None = None) -> Tensor:
    """Stacked filterbank [B, 4C, 560] of waves of whole chunks, before normalisation."""
    return stack(fbank(waves, mel_filters() if filters is None else filters))


def measure_normalisation(model: Speller, clips: Sequence[Clip]) -> None:
    """Set am.mvn from rows of `clips` as they are heard."""
    rng = np.random.default_rng(1)
    heard = [r.heard for _ in range(12) for r in make_batch(clips, 40, LENGTHS[1:2], rng)]
    found = features(torch.from_numpy(np.stack(heard))).flatten(0, 1)
    model.shift.copy_(-found.mean(0))
    model.scale.copy_(1 / found.std(0).clamp(min=0.1))


@dataclass(frozen=True)
class Masks:
    """SpecAugment on stacked features: in some rows a few frames and a band of mels are blanked.

    Attributes:
        share: of the rows, for each of the two.
        frames: of 60 ms, fewer than so many.
        mels: fewer than so many.
        times: how often both are drawn.
    """

    share: float = 0.4
    frames: int = 4
    mels: int = 14
    times: int = 1

    def draw(
        self, rows: int, length: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of frames [rows, length] and of mels [rows, 80]: 0 where blanked and 1 elsewhere."""
        frames = np.ones((rows, length), np.float32)
        mels = np.ones((rows, MELS), np.float32)
        for row in range(rows):
            for _ in range(self.times):
                if rng.random() < self.share:
                    start = int(rng.integers(length))
                    frames[row, start : start + int(rng.integers(1, self.frames))] = 0
                if rng.random() < self.share:
                    low = int(rng.integers(MELS))
                    mels[row, low : low + int(rng.integers(2, self.mels))] = 0
        return frames, mels


USUAL_MASKS = Masks()


def heard(rows: Sequence[Row]) -> Tensor:
    """The waves of `rows` as they are heard, float32 [rows, samples]."""
    return torch.from_numpy(np.stack([row.heard for row in rows]))


class Normalised(Protocol):
    """What has am.mvn's numbers, both [560]: (x + shift) * scale."""

    shift: Tensor
    scale: Tensor


@functools.cache
def _warped(device: torch.device) -> Tensor:
    return torch.stack([mel_filters(warp) for warp in WARPS]).to(device)


def batch_features(
    model: Normalised, waves: Tensor, rng: np.random.Generator, masks: Masks = USUAL_MASKS
) -> Tensor:
    """Augmented, normalised features of training rows: warped tracts, tilted spectra, masks.

    Args:
        model: whose normalisation, and on whose device.
        waves: float32 [rows, samples].
        rng: draws all.
        masks: what is blanked.
    """
    rows, device = len(waves), model.shift.device
    filters = _warped(device)[torch.from_numpy(rng.choice(len(WARPS), rows)).to(device)]
    found = features(waves.to(device), filters)
    tilt = np.cos(np.linspace(0, 1, 80) * math.pi * rng.uniform(0.3, 3, (rows, 1)))
    tilt = tilt * rng.normal(0, 0.5, (rows, 1))
    tilted = found + torch.from_numpy(tilt).float().to(device).repeat(1, LFR_M)[:, None]
    frames, mels = (torch.from_numpy(m).to(device) for m in masks.draw(rows, found.shape[1], rng))
    kept = frames[..., None] * mels.repeat(1, LFR_M)[:, None]
    return (tilted + model.shift) * model.scale * kept


def train(clips: Sequence[Clip], judge: Sequence[Clip], run: Run) -> Speller:
    """Train, or go on; `judge` (held-out voices) is only measured."""
    torch.manual_seed(0)
    model = Speller(corpus_pieces())
    measure_normalisation(model, clips)
    guide = measure_guide(clips, work_dir() / "guide.npz")

    def losses(step: int) -> Losses:
        rng = np.random.default_rng([7, step])
        rows = make_batch(clips, BATCH_SECONDS, LENGTHS, rng)
        if step == run.schedule.codes_from:
            _place_codes(model, clips)
        features = batch_features(model, heard(rows), rng)
        with mixed():
            emitted = model.encoder(features)
        targets, states = [r.phonemes for r in rows], guide.targets(rows, FRAME, DELAY)
        raw = spelling_loss(model.spell(emitted), targets)
        words = WORDS * model.words_loss(emitted, rows)
        if step < run.schedule.codes_from:
            return {
                "raw": raw,
                "guide": guided_loss(model.guided(emitted), states),
                "words": words,
            }
        quantised, commitment = model.codebook(emitted)
        return {
            "codes": spelling_loss(model.spell(quantised), targets),
            "raw": 0.3 * raw,
            "guide": guided_loss(model.guided(quantised), states),
            "commitment": 0.1 * commitment,
            "words": words,
        }

    run.train(model, model.encoder, losses, lambda step: phoneme_errors(model, judge))
    return model


@torch.no_grad()
def _place_codes(model: Speller, clips: Sequence[Clip]) -> None:
    """K-means on what the encoder emits for augmented speech."""
    rng = np.random.default_rng(3)
    found = [
        model.encoder(
            batch_features(model, heard(make_batch(clips, 80, LENGTHS, rng)), rng)
        ).flatten(0, 1)
        for _ in range(25)
    ]
    model.codebook.place(torch.cat(found))


@torch.no_grad()
def phoneme_errors(model: Speller, clips: Sequence[Clip]) -> dict[str, float]:
    """Phoneme error rates in percent, greedy: every voice's, and of all through the `codes`."""
    model.eval()
    wrong: dict[str, list[int]] = {}
    for clip in clips:
        n = -(-(len(clip.pcm) + 1600) // CHUNK_SAMPLES) * CHUNK_SAMPLES
        wave = torch.from_numpy(np.pad(clip.wave, (0, n - len(clip.pcm))))[None]
        emitted = model.encoder((features(wave) + model.shift) * model.scale)
        said = list(clip.phonemes)
        for name, frames in ((clip.voice, emitted), ("codes", model.codebook.lookup(emitted))):
            heard = collapse(model.spell(frames)[0].argmax(-1).tolist())
            entry = wrong.setdefault(name, [0, 0])
            entry[0] += edit_distance(said, heard)
            entry[1] += len(said)
    return {name: round(100 * errors / count, 1) for name, (errors, count) in wrong.items()}
