"""Training: the tokens must spell the words, carry the melody, and give back the clean sound.

The sound is given back by a small decoder that is told who speaks, so codes need not carry that;
pitch is asked for relative to the speaker's mean, so one sentence in two voices can be one code
sequence, and an answer's codes can be spoken in another voice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aqaa.recipe.precision import mixed
from aqaa.recipe.semantic.network import MELS, WIDTH, SemanticEncoder
from aqaa.recipe.semantic.targets import (
    FRAMES,
    SPEAKERS,
    TOKEN,
    Pitch,
    Targets,
    log_mel,
    make_targets,
    measure_pitch,
)
from aqaa.recipe.speech.batches import make_batch
from aqaa.recipe.speech.cache import work_dir
from aqaa.recipe.speech.guide import WIDTH as GUIDE
from aqaa.recipe.speech.guide import Guide, measure_guide
from aqaa.recipe.speech.phonemes import CLASSES, collapse, edit_distance
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.tokenizer_run import Run, Schedule
from aqaa.recipe.training import Losses
from aqaa.recipe.word_losses import guided_loss, spelling_loss

LENGTHS = tuple(TOKEN * 6 * blocks for blocks in (13, 18, 25, 34))
BATCH_SECONDS = 32.0
USUAL = Schedule(steps=12_000, codes_from=2000)
INNER = 192  # the training-time decoder's width
MEL, PITCH, VOICING, COMMITMENT = 2.0, 3.0, 0.3, 1.0  # weights beside CTC's 1


class _Mixer(nn.Module):
    """Depthwise convolution over time and an MLP, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.over_time = nn.Conv1d(INNER, INNER, 7, padding=3, groups=INNER)
        self.norm = nn.LayerNorm(INNER)
        self.mlp = nn.Sequential(
            nn.Linear(INNER, 3 * INNER), nn.GELU(), nn.Linear(3 * INNER, INNER)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mlp(self.norm(self.over_time(x.transpose(1, 2)).transpose(1, 2)))
        return x + out


class Learner(nn.Module):
    """The encoder with the heads that teach it; only the encoder is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SemanticEncoder()
        self.spell = nn.Linear(WIDTH, CLASSES)
        self.guided = nn.Linear(WIDTH, GUIDE)
        self.melody = nn.Linear(WIDTH, 2)  # relative log f0, voicing
        self.speaker = nn.Embedding(len(SPEAKERS) + 1, INNER)
        self.speed = nn.Linear(1, INNER)
        self.enter = nn.Linear(WIDTH, INNER)
        self.mixers = nn.Sequential(_Mixer(), _Mixer(), _Mixer())
        self.leave = nn.Linear(INNER, FRAMES * MELS)

    def losses(self, targets: Targets, quantise: bool) -> dict[str, Tensor]:
        """Every part of the loss, unweighted."""
        with mixed():
            vectors = self.encoder(targets.mel).float()
        # Unit vectors are short for linear heads: scaled to unit variance an element.
        parts: dict[str, Tensor] = {}
        if quantise:
            codes, commitment = self.encoder.codebook(vectors)
            parts["commitment"] = commitment * WIDTH
        else:
            codes = vectors
        x = codes * math.sqrt(WIDTH)
        parts["ctc"] = spelling_loss(F.log_softmax(self.spell(x), -1), targets.phonemes)
        melody, voiced = self.melody(x), torch.isfinite(targets.pitch)
        parts["pitch"] = (melody[..., 0] - targets.pitch)[voiced].abs().mean()
        parts["voicing"] = F.binary_cross_entropy_with_logits(melody[..., 1], voiced.float())
        inner = self.enter(x) + self.speaker(targets.speaker) + self.speed(targets.speed[..., None])
        with mixed():
            sound = self.leave(self.mixers(inner))
        parts["mel"] = (sound - targets.clean).abs().mean()
        parts["guide"] = guided_loss(self.guided(x), targets.guide)
        return parts


WEIGHTS = {
    "ctc": 1.0,
    "guide": 1.0,
    "mel": MEL,
    "pitch": PITCH,
    "voicing": VOICING,
    "commitment": COMMITMENT,
}


def train(clips: Sequence[Clip], judge: Sequence[Clip], run: Run) -> Learner:
    """Train, or go on; `judge` (held-out voices) is only measured."""
    torch.manual_seed(0)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    pitch = measure_pitch(clips, run.checkpoints / "pitch.npz")
    guide = measure_guide(clips, work_dir() / "guide.npz")
    model = Learner()
    coded = run.schedule.codes_from

    def losses(step: int) -> Losses:
        rng = np.random.default_rng([11, step])
        rows = make_batch(clips, BATCH_SECONDS, LENGTHS, rng)
        targets = make_targets(rows, pitch, guide, rng)
        if step == coded:
            _place_codes(model, clips, pitch, guide)
        parts = model.losses(targets, step >= coded)
        return {name: WEIGHTS[name] * part for name, part in parts.items()}

    def errors(step: int) -> dict[str, float]:
        return phoneme_errors(model, judge, step > coded)

    run.train(model, model.encoder.blocks, losses, errors)
    return model


@torch.no_grad()
def _place_codes(model: Learner, clips: Sequence[Clip], pitch: Pitch, guide: Guide) -> None:
    """K-means on the vectors of augmented speech."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(20):
        rows = make_batch(clips, BATCH_SECONDS, LENGTHS, rng)
        targets = make_targets(rows, pitch, guide, rng)
        found.append(model.encoder(targets.mel).flatten(0, 1))
    model.encoder.codebook.place(torch.cat(found), rounds=6)


@torch.no_grad()
def phoneme_errors(model: Learner, clips: Sequence[Clip], quantise: bool) -> dict[str, float]:
    """Phoneme error rate in percent of every voice, through the codes if `quantise`."""
    model.eval()
    wrong: dict[str, list[int]] = {}
    used: set[int] = set()
    for clip in clips:
        mel = torch.from_numpy(log_mel(np.pad(clip.wave, (0, 1600))))[None]
        vectors = model.encoder(mel)
        if quantise:
            used.update(model.encoder.codebook.nearest(vectors).flatten().tolist())
            vectors = model.encoder.codebook.lookup(vectors)
        heard = collapse(model.spell(vectors * math.sqrt(WIDTH))[0].argmax(-1).tolist())
        entry = wrong.setdefault(clip.voice, [0, 0])
        entry[0] += edit_distance(list(clip.phonemes), heard)
        entry[1] += len(clip.phonemes)
    rates = {name: round(100 * errors / count, 1) for name, (errors, count) in wrong.items()}
    return rates | ({"codes used": float(len(used))} if quantise else {})
