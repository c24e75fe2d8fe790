"""Mel to wave: first the f0 predictor alone, then the generator on the pitch of the recordings.

Only reconstruction losses (15 x mel L1 + 5 x multi-resolution STFT): adversaries did not help a
generator of this size within minutes of training.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from aqaa.recipe.precision import mixed
from aqaa.recipe.speech.pitch import in_step
from aqaa.recipe.training import USUAL, Losses, Rates, train
from aqaa.recipe.vocoder.settings import HOP, settings
from aqaa.vocoder.hift import Hift
from aqaa.vocoder.mel import log_mel

BATCH, FRAMES = 16, 32
F0_BATCH, F0_FRAMES = 32, 96
F0_SCALE = 100.0  # Hz
RESOLUTIONS = (256, 512, 1024, 2048)  # FFT sizes of the spectral loss, hop a quarter
MEL_WEIGHT, STFT_WEIGHT = 15.0, 5.0


def begin_f0(hift: Hift) -> None:
    """Put the untrained predictor at the right scale: Hz are hundreds, weights are not."""
    with torch.no_grad():
        hift.f0_predictor.classifier.weight.mul_(F0_SCALE)
        hift.f0_predictor.classifier.bias.fill_(F0_SCALE)


def train_f0(
    hift: Hift,
    pairs: list[tuple[Tensor, Tensor]],
    steps: int,
    checkpoint: Path,
    rates: Rates = USUAL,
) -> None:
    """Fit `hift.f0_predictor` by L1 in Hz.

    Args:
        hift: its f0 predictor is trained in place.
        pairs: mel float32 [80, T] as it will be given, and the f0 track [T], 0 where unvoiced.
        steps: see `train`.
        checkpoint: see `train`.
        rates: see `Rates`.
    """
    rows = [(mel, f0[None]) for mel, f0 in pairs]

    def losses(step: int) -> Losses:
        mels, targets = _crops(rows, F0_BATCH, F0_FRAMES)
        return {"f0": functional.l1_loss(hift.f0(mels), targets[:, 0]) / F0_SCALE}

    train(hift.f0_predictor, losses, steps=steps, checkpoint=checkpoint, rates=rates)


def train_generator(
    hift: Hift,
    triples: list[tuple[Tensor, Tensor, Tensor]],
    steps: int,
    checkpoint: Path,
    rates: Rates = USUAL,
) -> None:
    """Fit everything but the f0 predictor.

    The source keeps step with the recording (`in_step`): only then does a generator that follows
    it have the smaller loss. With a predicted pitch, or pulses anywhere, low voices lose theirs.

    Args:
        hift: trained in place.
        triples: mel float32 [80, T] as it will be given to the generator, the f0 track [T] and the
            wave [256 T] that belong to it.
        steps: see `train`.
        checkpoint: see `train`.
        rates: see `Rates`.
    """
    mels = settings().feat_extractor
    hift.f0_predictor.requires_grad_(False)
    rows = [
        (torch.cat([mel, torch.stack(in_step(wave, f0))]), wave.view(-1, HOP).T)
        for mel, f0, wave in triples
    ]

    def losses(step: int) -> Losses:
        given, columns = _crops(rows, BATCH, FRAMES)
        wanted = columns.transpose(1, 2).flatten(1)
        source = _excite(hift, given[:, -2], given[:, -1, 0])
        with mixed():
            magnitude, phase = hift.spectrum(given[:, :-2], source)
        made = hift.synthesise(magnitude.float(), phase.float())
        return {
            "mel": MEL_WEIGHT * functional.l1_loss(log_mel(made, mels), log_mel(wanted, mels)),
            "stft": STFT_WEIGHT * spectral_loss(made, wanted),
        }

    train(hift, losses, steps=steps, checkpoint=checkpoint, rates=rates)
    hift.f0_predictor.requires_grad_(True)


def speak(hift: Hift, mel: Tensor) -> Tensor:
    """Wave float32 [B, 256 T] of mel [B, 80, T], at the pitch that the model hears in it."""
    return hift.decode(mel, _excite(hift, hift.f0(mel), torch.zeros(len(mel))))


def _excite(hift: Hift, f0: Tensor, cycles: Tensor) -> Tensor:
    """The source [B, 1, 256 T] of f0 [B, T] whose fundamental begins at `cycles` [B]."""
    batch, harmonics = len(f0), hift.config.nb_harmonics + 1
    offsets = (torch.rand(batch, harmonics) * 2 - 1) * math.pi
    offsets[:, 0] = 0.0
    noise = torch.randn(batch, harmonics, HOP * f0.shape[-1])
    source, _ = hift.source(f0, cycles.double(), offsets, noise)
    return source


def spectral_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Mean over `RESOLUTIONS` of log-magnitude L1 + spectral convergence, of waves [B, S]."""
    total = made.new_zeros(())
    for size in RESOLUTIONS:
        a, b = (_magnitude(x, size) for x in (made, wanted))
        total = total + functional.l1_loss(a.log(), b.log()) + (a - b).norm() / b.norm()
    return total / len(RESOLUTIONS)


def _magnitude(wave: Tensor, size: int) -> Tensor:
    window = torch.hann_window(size)
    spectrum = torch.stft(wave, size, size // 4, size, window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square()).clamp(min=1e-7).sqrt()


def _crops(rows: list[tuple[Tensor, Tensor]], batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """`batch` random crops of `frames` columns from pairs of [*, T], long rows more often."""
    lengths = torch.tensor([float(a.shape[-1]) for a, _ in rows])
    lengths = lengths * (lengths > frames)
    left, right = [], []
    for i in torch.multinomial(lengths, batch, replacement=True).tolist():
        a, b = rows[i]
        at = int(torch.randint(a.shape[-1] - frames + 1, ()))
        left.append(a[..., at : at + frames])
        right.append(b[..., at : at + frames])
    return torch.stack(left), torch.stack(right)
