"""Features of a voice's prompt: the vocoder's log-mel, and CAM++'s filterbank and x-vector.

They are those of the published text-to-speech path, resampling included, so that a voice made here
is the voice made there.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torchaudio.compliance import kaldi
from torchaudio.functional import melscale_fbanks

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError, BundleError
from aqaa.models.weights import require_file
from aqaa.vocoder.config import MelConfig

POWER_FLOOR = 1e-9  # added under the square root of the power spectrum (SPEC 7.1)
MEL_FLOOR = 1e-5  # the log's argument is at least this; its log is digital silence
SPEAKER_BINS = 80  # mel bands of CAM++'s Kaldi filterbank
SPEAKER_WINDOW = 400  # samples at 16 kHz, 25 ms: one frame of that filterbank


def log_mel(wave: Tensor, config: MelConfig) -> Tensor:
    """Log-mel float32 [..., M, N // hop] of wave float32 [..., N] at `config.sampling_rate`.

    Magnitude spectrum of frames whose middles are hop/2 apart from the edges, Slaney's mel filters,
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
    filters: Tensor = melscale_fbanks(
        config.n_fft // 2 + 1, config.fmin, top, config.num_mels, config.sampling_rate,
        norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    return filters.T.contiguous()


def speaker_features(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """CAM++'s input [frames, 80] from 16 kHz audio: Kaldi filterbank less its mean over time.

    Povey window and no dither (SPEC 7.1). The wave stays in [-1, 1], where Kaldi's custom is the
    scale of int16.

    Raises:
        AudioError: less than one window, 25 ms.
    """
    if len(wave) < SPEAKER_WINDOW:
        raise AudioError("a voice's recording must be longer than 25 ms")
    frames = kaldi.fbank(
        torch.from_numpy(wave)[None],
        num_mel_bins=SPEAKER_BINS,
        dither=0.0,
        sample_frequency=TOKENIZER_RATE,
    )
    return np.asarray((frames - frames.mean(dim=0)).numpy(), np.float32)


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
