"""Features of a voice's prompt: the vocoder's log-mel, and CAM++'s filterbank and x-vector.

They are those of the published text-to-speech path, resampling included, so that a voice made here
is the voice made there.
"""

from __future__ import annotations

from functools import cache
from math import ceil, gcd
from pathlib import Path

import kaldi_native_fbank as knf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError, BundleError
from aqaa.models.weights import require_file
from aqaa.vocoder.config import MelConfig

POWER_FLOOR = 1e-9  # added under the square root of the power spectrum (SPEC 7.1)
MEL_FLOOR = 1e-5  # the log's argument is at least this; its log is digital silence
RESAMPLE_CROSSINGS, RESAMPLE_ROLLOFF = 6, 0.99  # torchaudio's defaults (SPEC 1)
SPEAKER_BINS = 80  # CAM++ hears an 80-bin Kaldi filterbank


def log_mel(wave: Tensor, config: MelConfig) -> Tensor:
    """Log-mel float32 [..., M, N // hop] of wave float32 [..., N] at `config.sampling_rate`.

    Magnitude spectrum of frames whose middles are hop/2 apart from the edges, slaney's mel filters,
    natural logarithm.

    Raises:
        AudioError: the wave is too short to be reflected at its ends.
    """
    edge = (config.n_fft - config.hop_size) // 2
    if wave.shape[-1] <= edge:
        raise AudioError(f"{wave.shape[-1]} samples are too short: a mel needs {edge + 1}")
    padded = functional.pad(wave.reshape(-1, 1, wave.shape[-1]), (edge, edge), mode="reflect")[:, 0]
    window = torch.hann_window(config.win_size, device=wave.device)
    spectrum = torch.stft(
        padded, config.n_fft, config.hop_size, config.win_size, window,
        center=False, return_complex=True,
    )  # fmt: skip
    magnitude = (spectrum.real.square() + spectrum.imag.square() + POWER_FLOOR).sqrt()
    mel = (_filters(config).to(wave) @ magnitude).clamp(min=MEL_FLOOR).log()
    return mel.reshape(*wave.shape[:-1], *mel.shape[-2:])


@cache
def _filters(config: MelConfig) -> Tensor:
    """Slaney's triangular filters, each of unit area, float32 [M, n_fft/2+1]."""
    top = config.fmax if config.fmax is not None else config.sampling_rate / 2
    low, high = _to_mel(config.fmin), _to_mel(top)
    edges = _to_hertz(np.linspace(low, high, config.num_mels + 2))
    bins = np.linspace(0.0, config.sampling_rate / 2, config.n_fft // 2 + 1)
    width = np.diff(edges)[:, None]
    rise = (bins - edges[:-2, None]) / width[:-1]
    fall = (edges[2:, None] - bins) / width[1:]
    area = 2.0 / (edges[2:] - edges[:-2])[:, None]
    return torch.from_numpy(np.maximum(0.0, np.minimum(rise, fall)) * area).float()


# Slaney's scale: 200/3 Hz a mel to 1 kHz (mel 15), then 27 mels for a factor of 6.4.
_KNEE_HERTZ, _KNEE_MEL, _MELS_PER_E = 1000.0, 15.0, 27.0 / np.log(6.4)


def _to_mel(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz * 3.0 / 200.0
    return float(_KNEE_MEL + _MELS_PER_E * np.log(hertz / _KNEE_HERTZ))


def _to_hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HERTZ * np.exp((mel - _KNEE_MEL) / _MELS_PER_E)
    return np.where(mel < _KNEE_MEL, mel * 200.0 / 3.0, above)


def resample(wave: Tensor, source: int, target: int) -> Tensor:
    """Wave float32 [N] at `source` Hz as [ceil(N * target / source)] at `target` Hz.

    A Hann-windowed sinc of 6 zero crossings, rolled off at 0.99 of the lower Nyquist frequency:
    what torchaudio does by default, and so the published prompts.
    """
    if source == target:
        return wave
    step, phases = source // gcd(source, target), target // gcd(source, target)
    cutoff = min(step, phases) * RESAMPLE_ROLLOFF
    width = ceil(RESAMPLE_CROSSINGS * step / cutoff)
    taps = torch.arange(-width, width + step, dtype=torch.float64) / step
    shifts = torch.arange(phases, dtype=torch.float64)[:, None] / phases
    at = ((taps - shifts) * cutoff).clamp(-RESAMPLE_CROSSINGS, RESAMPLE_CROSSINGS)
    window = torch.cos(at * (torch.pi / 2 / RESAMPLE_CROSSINGS)).square()
    kernels = (torch.sinc(at) * window * (cutoff / step)).float()[:, None]
    padded = functional.pad(wave, (width, width + step))[None, None]
    out = functional.conv1d(padded, kernels, stride=step)[0].T.reshape(-1)
    return out[: ceil(len(wave) * target / source)]


def speaker_features(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """CAM++'s input [frames, 80] from 16 kHz audio: Kaldi filterbank less its mean over time.

    Povey window and no dither (SPEC 7.1); the wave stays in [-1, 1], unlike Kaldi's custom.

    Raises:
        AudioError: less than one window, 25 ms.
    """
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = TOKENIZER_RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = SPEAKER_BINS
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(TOKENIZER_RATE, wave.tolist())
    if not bank.num_frames_ready:
        raise AudioError("a voice's recording must be longer than 25 ms")
    frames = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
    return np.asarray(frames - frames.mean(axis=0), np.float32)


def speaker_embedding(wave: NDArray[np.float32], campplus: Path) -> NDArray[np.float32]:
    """The x-vector float32 [192] of 16 kHz audio by the CAM++ network in `campplus` (ONNX).

    Raises:
        BundleError: the file is missing or is not such a network.
        AudioError: less than 25 ms of audio.
    """
    import onnxruntime

    require_file(campplus, "the speaker encoder (campplus.onnx)")
    features = speaker_features(wave)[None]
    try:
        session = onnxruntime.InferenceSession(campplus, providers=["CPUExecutionProvider"])
        (embedding,) = session.run(None, {session.get_inputs()[0].name: features})
    except Exception as error:  # onnxruntime's exceptions share no base class but this
        raise BundleError(f"{campplus} is no CAM++ speaker encoder: {error}") from error
    return np.asarray(embedding, np.float32).reshape(-1)
