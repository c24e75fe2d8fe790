"""Acoustic features of the two tokenizers: Kaldi's filterbank and whisper's log-mel spectrogram.

All functions are pure; streams call them on the samples that a step needs.
"""

from __future__ import annotations

from functools import cache

import kaldi_native_fbank as knf
import numpy as np
from numpy.typing import NDArray
from torchaudio.functional import melscale_fbanks

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.tokenizers.stream import Samples

FBANK_WINDOW_SAMPLES = 400  # samples, 25 ms
FBANK_HOP_SAMPLES = 160  # samples, 10 ms
FBANK_BINS = 80

MEL_BINS = 128  # whisper large-v3's, which CosyVoice-1.0's tokenizer uses
MEL_HOP_SAMPLES = 160  # samples, 10 ms
MEL_HALF_WINDOW_SAMPLES = 200  # samples: frame t sees [160 t - 200, 160 t + 200)
_MEL_FFT_SAMPLES = 2 * MEL_HALF_WINDOW_SAMPLES
_MEL_RANGE_DECADES = 8.0  # whisper keeps this many decades of power below the loudest bin


def kaldi_fbank(samples: Samples) -> Samples:
    """Log mel filterbank `[frames, 80]` float32 of 16 kHz audio `[n]` in [-1, 1].

    torchaudio.compliance.kaldi.fbank with FunASR's settings (Hamming window, 25 ms / 10 ms, samples
    on the int16 scale, snip_edges), but without dither: FunASR's default adds noise of one int16
    step, which would make tokens random. Fewer than 400 samples give no frame.
    """
    if samples.size < FBANK_WINDOW_SAMPLES:
        return np.empty((0, FBANK_BINS), np.float32)
    bank = knf.OnlineFbank(_fbank_options())
    # A list crosses the binding twice as fast as an array does.
    bank.accept_waveform(TOKENIZER_RATE, (samples * np.float32(32768)).tolist())
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


@cache
def _fbank_options() -> knf.FbankOptions:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = TOKENIZER_RATE
    options.frame_opts.window_type = "hamming"
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = FBANK_BINS
    return options


def whisper_log_mel(
    samples: Samples,
    *,
    chunk_frames: int | None = None,
    mel_peak: float = -np.inf,
    bins: int = MEL_BINS,
) -> Samples:
    """Whisper's log-mel `[n // 160, bins]` float32 of 16 kHz audio `[n]`, n >= 201, in [-1, 1].

    openai/whisper `log_mel_spectrogram(n_mels=bins)`: reflect padding at both ends, power in log10,
    clamped at 8 below the loudest bin, then (x + 4) / 4.

    Whisper's clamp needs the whole audio. With `chunk_frames` it is causal instead: chunk k is
    clamped below the maximum of `mel_peak` (log10 power) and all frames up to chunk k's end.
    """
    head, tail = reflect_head(samples), reflect_tail(samples)
    power = log_power_mel(
        np.concatenate([head, samples, tail])[: _span(samples.size // MEL_HOP_SAMPLES)], bins
    )
    loudest = power.max(axis=1)
    if chunk_frames is None:
        loudest[:] = loudest.max()
    else:
        loudest = np.maximum(np.maximum.accumulate(loudest), np.float32(mel_peak))
        last = np.arange(loudest.size) // chunk_frames * chunk_frames + chunk_frames - 1
        loudest = loudest[np.minimum(last, loudest.size - 1)]
    return clamp_log_mel(power, loudest[:, None])


def log_power_mel(padded: Samples, bins: int = MEL_BINS) -> Samples:
    """Log10 mel power `[frames, bins]`, unclamped; frame t sees `padded[160 t : 160 t + 400]`."""
    frames = np.lib.stride_tricks.sliding_window_view(padded, _MEL_FFT_SAMPLES)[::MEL_HOP_SAMPLES]
    spectrum = np.fft.rfft(frames * _hann())
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    mel = power.astype(np.float32) @ mel_filters(bins).T
    return np.asarray(np.log10(np.maximum(mel, np.float32(1e-10))), np.float32)


def clamp_log_mel(power: Samples, loudest: NDArray[np.float32] | np.float32) -> Samples:
    """Whisper's last step on log10 mel power: clamp 8 decades below `loudest`, then (x + 4) / 4."""
    return (
        np.maximum(power, loudest - np.float32(_MEL_RANGE_DECADES)) + np.float32(4)
    ) / np.float32(4)


def reflect_head(samples: Samples) -> Samples:
    """The 200 samples that reflect padding puts before the audio; needs 201 samples."""
    return samples[MEL_HALF_WINDOW_SAMPLES:0:-1]


def reflect_tail(samples: Samples) -> Samples:
    """The 200 samples that reflect padding puts after the audio; needs its last 201 samples."""
    return samples[-2 : -2 - MEL_HALF_WINDOW_SAMPLES : -1]


def _span(frames: int) -> int:
    """Samples of padded audio that `frames` frames see."""
    return (frames - 1) * MEL_HOP_SAMPLES + _MEL_FFT_SAMPLES


@cache
def _hann() -> Samples:
    return np.hanning(_MEL_FFT_SAMPLES + 1)[:-1].astype(np.float32)  # periodic


@cache
def mel_filters(bins: int) -> Samples:
    """Slaney's mel filters `[bins, 201]` at 16 kHz, each of unit area (librosa's and whisper's)."""
    filters = melscale_fbanks(
        MEL_HALF_WINDOW_SAMPLES + 1, 0.0, TOKENIZER_RATE / 2, bins, TOKENIZER_RATE,
        norm="slaney", mel_scale="slaney",
    )  # fmt: skip
    return np.ascontiguousarray(filters.T.numpy())
