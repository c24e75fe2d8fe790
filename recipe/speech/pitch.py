"""Fundamental frequency of clean speech, by the normalised autocorrelation of low-passed frames.

WORLD's DIO and Harvest were tried first: on joe, who creaks around 80 Hz, they lose the voice in a
third of the loud frames or report a harmonic.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from aqaa.models.bundle import VOCODER_RATE

LOWEST, HIGHEST = 62.0, 420.0  # Hz; joe's creak to ada's highest
WINDOW, FFT = 1024, 4096
TOP_HZ = 1300.0  # harmonics above carry noise
PERIODIC = 0.5  # share of a frame's energy that must repeat after a period
EARLIEST = 0.87  # the first peak so near to the best is the period, later ones its multiples
FLOOR = 3e-3  # RMS below which nothing is voiced
SHORTEST = 4  # frames; shorter voiced runs are taken for chance
STEP_WINDOW = 661  # samples, 30 ms: over these the fundamental's phase is measured
PULL, BEND = 0.5, 0.12  # of a phase error made good in a frame; share that the f0 may move for it


def f0_track(wave: Tensor, hop: int = 256) -> Tensor:
    """f0 float32 [N // hop] in Hz, 0 where unvoiced, of wave float32 [N] at 22 050 Hz.

    Frame i looks at the WINDOW samples around the middle of samples [hop i, hop i + hop).
    """
    frames = len(wave) // hop
    edge = (WINDOW - hop) // 2
    window = torch.hann_window(WINDOW)
    blocks = functional.pad(wave, (edge, edge)).unfold(0, WINDOW, hop)[:frames] * window
    power = torch.fft.rfft(blocks, FFT).abs().square()
    power[:, int(TOP_HZ * FFT / VOCODER_RATE) :] = 0.0
    spread = torch.fft.irfft(torch.fft.rfft(window, FFT).abs().square())
    longest, shortest = int(VOCODER_RATE / LOWEST), int(VOCODER_RATE / HIGHEST)
    repeat = torch.fft.irfft(power)[:, : longest + 2]
    repeat = repeat / repeat[:, :1].clamp(min=1e-9) / (spread[: longest + 2] / spread[0])
    inner = repeat[:, shortest : longest + 1]
    peak = (inner >= repeat[:, shortest - 1 : longest]) & (
        inner >= repeat[:, shortest + 1 : longest + 2]
    )
    height = torch.where(peak, inner, torch.zeros_like(inner))
    best = height.amax(1, keepdim=True)
    lag = (height >= EARLIEST * best).float().argmax(1) + shortest
    loud = blocks.square().mean(1).sqrt() > FLOOR
    f0 = VOCODER_RATE / _between(repeat, lag)
    f0 = torch.where((best[:, 0] > PERIODIC) & loud, f0, torch.zeros_like(f0))
    return _tidy(f0)


def in_step(wave: Tensor, f0: Tensor) -> tuple[Tensor, Tensor]:
    """A pitch in step with a recording: what follows it has the recording's pulses in their places.

    A phase-locked loop on the fundamental, which is measured by demodulation at `f0`. The phase
    stands still where there is no voice, and is in step a few frames after each onset.

    Args:
        wave: float32 [hop T], 22 050 Hz.
        f0: float32 [T], Hz, 0 where unvoiced; see `f0_track`.

    Returns:
        `f0` bent by `BEND` at most, float32 [T], and the cycles in [0, 1) at the beginning of each
        frame, float32 [T].
    """
    hop = len(wave) // len(f0)
    true = _fundamental(wave.double(), f0.double(), hop)
    bent, cycles, now = torch.zeros(len(f0)), torch.zeros(len(f0)), float(true[0])
    for i, hertz in enumerate(f0.tolist()):
        cycles[i] = now % 1.0
        if not hertz:
            continue
        turns = hertz * hop / VOCODER_RATE
        behind = (float(true[i + 1]) - (now + turns) + 0.5) % 1.0 - 0.5
        turns += min(max(PULL * behind, -BEND * turns), BEND * turns)
        bent[i] = turns * VOCODER_RATE / hop
        now += turns
    return bent, cycles


def _fundamental(wave: Tensor, f0: Tensor, hop: int) -> Tensor:
    """Cycles of the fundamental at the edges of the frames, [T + 1], whole cycles aside."""
    voiced = torch.where(f0 > 0, torch.arange(len(f0)), -1).cummax(0).values.clamp(min=0)
    held = f0[voiced].clamp(min=LOWEST)
    theta = functional.pad((held.repeat_interleave(hop) / VOCODER_RATE).cumsum(0), (1, 0))
    base = torch.polar(functional.pad(wave, (1, 0)), -2 * torch.pi * theta)
    window = torch.hann_window(STEP_WINDOW, periodic=False, dtype=torch.float64)[None, None]
    parts = torch.stack([base.real, base.imag])[:, None]
    real, imag = functional.conv1d(parts, window, stride=hop, padding=STEP_WINDOW // 2)[:, 0]
    return theta[::hop] + torch.atan2(imag, real) / (2 * torch.pi)


def _between(curve: Tensor, at: Tensor) -> Tensor:
    """The peaks of `curve` [T, L] near the columns `at` [T], between the samples, by parabola."""
    left, middle, right = (curve.gather(1, (at + d)[:, None])[:, 0] for d in (-1, 0, 1))
    bend = (left - 2 * middle + right).clamp(max=-1e-9)
    return at + (0.5 * (left - right) / bend).clamp(-0.5, 0.5)


def _tidy(f0: Tensor) -> Tensor:
    """A median of five frames against octave slips, then without runs of under SHORTEST frames."""
    voiced = f0 > 0
    around = functional.pad(f0[None], (2, 2), mode="replicate")[0].unfold(0, 5, 1)
    middle = torch.where(around > 0, around, torch.nan).nanmedian(1).values.nan_to_num()
    f0 = torch.where(voiced, middle, torch.zeros_like(f0))
    begins = torch.diff(voiced.int(), prepend=torch.zeros(1, dtype=torch.int)) != 0
    run = begins.cumsum(0)
    length = torch.bincount(run)[run]
    return torch.where(length < SHORTEST, torch.zeros_like(f0), f0)
