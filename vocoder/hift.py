"""Mel to wave: the published HiFT generator (harmonic-plus-noise source filter, inverse STFT).

Tensor names are the published ones, weight normalisation in its old form (`weight_g`, `weight_v`).
The three stages are separate, because a stream keeps the source's phase between chunks:

    f0 = hift.f0(mel)
    source, phase = hift.source(f0, phase, offsets, noise)
    wave = hift.decode(mel, source)
"""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqaa.vocoder.config import F0Config, HiftConfig

MAX_MAGNITUDE = 100.0  # the published clip of exp() before the inverse STFT
LAST_SLOPE = 0.01  # the last leaky ReLU has PyTorch's default slope, not lrelu_slope (SPEC 8)
UNVOICED_NOISE = 3.0  # unvoiced noise is nsf_alpha / 3


class NormedConv(nn.Module):
    """A convolution, transposed or not, whose weight is `weight_v` scaled to norms `weight_g`."""

    frozen: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, dilation: int = 1, upsample: int = 0
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.upsample = upsample
        plain = (
            nn.ConvTranspose1d(inputs, outputs, kernel)
            if upsample
            else nn.Conv1d(inputs, outputs, kernel)
        )
        self.kernel = kernel
        self.weight_g = nn.Parameter(plain.weight.detach().norm(dim=(1, 2), keepdim=True))
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.bias = plain.bias
        self.register_buffer("frozen", None, persistent=False)

    @property
    def weight(self) -> Tensor:
        """Normalised weight [outputs, inputs, kernel]; transposed, [inputs, outputs, kernel]."""
        if self.frozen is not None:
            return self.frozen
        norm: Tensor = self.weight_v.norm(dim=(1, 2), keepdim=True)
        return self.weight_v * (self.weight_g / norm)

    def freeze(self) -> None:
        """Fix the weight for inference, so that it is not computed in every call."""
        self.frozen = self.weight.detach()

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, inputs, T]: T stays, or grows `upsample` times."""
        if self.upsample:
            padding = (self.kernel - self.upsample) // 2
            return functional.conv_transpose1d(
                x, self.weight, self.bias, stride=self.upsample, padding=padding
            )
        padding = self.dilation * (self.kernel - 1) // 2
        return functional.conv1d(x, self.weight, self.bias, padding=padding, dilation=self.dilation)


class Hift(nn.Module):
    """The published generator, `hift.pt`."""

    window: Tensor

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        base, rates = config.base_channels, config.upsample_rates
        bins = config.istft_params.n_fft + 2  # real and imaginary, or magnitude and phase
        sizes = [base // 2 ** (i + 1) for i in range(len(rates))]
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(config.nb_harmonics + 1, 1)})
        self.conv_pre = NormedConv(config.in_channels, base, 7)
        self.ups = nn.ModuleList(
            NormedConv(inputs, outputs, kernel, upsample=rate)
            for inputs, outputs, kernel, rate in zip(
                [base, *sizes], sizes, config.upsample_kernel_sizes, rates, strict=False
            )
        )
        steps = list(accumulate([1, *rates[:0:-1]], lambda a, b: a * b))[::-1]
        self.source_downs = nn.ModuleList(
            nn.Conv1d(bins, size, 1)
            if step == 1
            else nn.Conv1d(bins, size, 2 * step, stride=step, padding=step // 2)
            for size, step in zip(sizes, steps, strict=True)
        )
        self.source_resblocks = nn.ModuleList(
            _ResBlock(size, kernel, dilations)
            for size, kernel, dilations in zip(
                sizes,
                config.source_resblock_kernel_sizes,
                config.source_resblock_dilation_sizes,
                strict=True,
            )
        )
        self.resblocks = nn.ModuleList(
            _ResBlock(size, kernel, dilations)
            for size in sizes
            for kernel, dilations in zip(
                config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True
            )
        )
        self.conv_post = NormedConv(sizes[-1], bins, 7)
        self.f0_predictor = _F0Predictor(config.f0_predictor)
        window = torch.hann_window(config.istft_params.n_fft, periodic=True)
        self.register_buffer("window", window, persistent=False)

    def freeze(self) -> None:
        """Fix every normalised weight for inference."""
        for module in self.modules():
            if isinstance(module, NormedConv):
                module.freeze()

    def f0(self, mel: Tensor) -> Tensor:
        """Fundamental frequency in Hz, [B, F], of mel [B, M, F]."""
        out: Tensor = self.f0_predictor(mel)
        return out

    def source(
        self, f0: Tensor, phase: Tensor, offsets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The excitation [B, 1, S], S = F * samples_per_frame, and its phases.

        Args:
            f0: Hz, [B, F].
            phase: of the fundamental before the first sample, in cycles, float64 [B].
            offsets: of every harmonic, in radians, [B, harmonics+1]; the fundamental's is 0.
            noise: N(0, 1) for every harmonic and sample, [B, harmonics+1, S].

        Returns:
            The source, and the fundamental's phase after every frame, float64 [B, F] in [0, 1).
        """
        config = self.config
        pitch = f0.repeat_interleave(config.samples_per_frame, dim=1)  # [B, S]
        cycles = phase[:, None] + (pitch.double() / config.sampling_rate).cumsum(1)
        order = torch.arange(1, config.nb_harmonics + 2, dtype=torch.float64, device=f0.device)
        turns = (cycles[:, None] * order[:, None]) % 1.0
        sines = config.nsf_alpha * torch.sin(turns.to(f0) * (2 * math.pi) + offsets[:, :, None])
        voiced = (pitch > config.nsf_voiced_threshold).to(f0)[:, None]
        level = torch.where(voiced > 0, config.nsf_sigma, config.nsf_alpha / UNVOICED_NOISE)
        waves = sines * voiced + level * noise
        merged = torch.tanh(self.m_source["l_linear"](waves.transpose(1, 2)))
        ends = cycles[:, config.samples_per_frame - 1 :: config.samples_per_frame]
        return merged.transpose(1, 2), ends % 1.0

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """The wave float32 [B, S] in +-audio_limit from mel [B, M, F] and source [B, 1, S]."""
        magnitude, phase = self.spectrum(mel, source)
        return self.synthesise(magnitude, phase)

    def spectrum(self, mel: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """Magnitude (not yet clipped) and phase of the wave's STFT, [B, n_fft/2+1, S/hop+1]."""
        config = self.config
        excitation = self._stft(source[:, 0])
        x = self.conv_pre(mel)
        kinds = len(config.resblock_kernel_sizes)
        last = len(self.ups) - 1
        for i, up in enumerate(self.ups):
            x = up(functional.leaky_relu(x, config.lrelu_slope))
            if i == last:
                x = functional.pad(x, (1, 0), mode="reflect")  # one more STFT frame than hops
            x = x + self.source_resblocks[i](self.source_downs[i](excitation))
            branches = self.resblocks[i * kinds : (i + 1) * kinds]
            x = torch.stack([branch(x) for branch in branches]).mean(0)
        x = self.conv_post(functional.leaky_relu(x, LAST_SLOPE))
        log_magnitude, angle = x.chunk(2, dim=1)
        return log_magnitude.exp(), angle.sin()

    def synthesise(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """The inverse STFT of `spectrum`'s results, limited.

        torch.istft checks its window's values in every call, for which a GPU would have to stop.
        """
        size, limit = self.config.istft_params.n_fft, self.config.audio_limit
        spectrum = torch.polar(magnitude.clamp(max=MAX_MAGNITUDE), phase)
        frames = torch.fft.irfft(spectrum, size, dim=1) * self.window[:, None]
        weight = self.window.square()[:, None].expand(1, -1, frames.shape[2])
        wave = self._overlap(frames) / self._overlap(weight)
        return wave.clamp(-limit, limit)

    def _overlap(self, frames: Tensor) -> Tensor:
        """Add up [B, n_fft, T] frames that are `hop_len` apart, [B, (T-1) * hop_len].

        Half a frame is cut off at either end, as it was added by the STFT.
        """
        params = self.config.istft_params
        length = params.n_fft + params.hop_len * (frames.shape[2] - 1)
        added = functional.fold(frames, (1, length), (1, params.n_fft), stride=(1, params.hop_len))[
            :, 0, 0
        ]
        return added[:, params.n_fft // 2 : length - params.n_fft // 2]

    def _stft(self, wave: Tensor) -> Tensor:
        """Real parts, then imaginary parts: [B, n_fft+2, S/hop+1] of wave [B, S]."""
        params = self.config.istft_params
        spectrum = torch.stft(
            wave, params.n_fft, params.hop_len, params.n_fft, self.window, return_complex=True
        )
        return torch.cat([spectrum.real, spectrum.imag], dim=1)


class _F0Predictor(nn.Module):
    LAYERS = 5

    def __init__(self, config: F0Config) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(self.LAYERS):
            inputs = config.cond_channels if i else config.in_channels
            layers += [NormedConv(inputs, config.cond_channels, 3), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.cond_channels, config.num_class)

    def forward(self, mel: Tensor) -> Tensor:
        out: Tensor = self.classifier(self.condnet(mel).transpose(1, 2))[..., 0].abs()
        return out


class _Snake(nn.Module):
    """x + sin^2(alpha x) / alpha, with an alpha for every channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        out: Tensor = x + torch.sin(alpha * x).square() / (alpha + 1e-9)
        return out


class _ResBlock(nn.Module):
    def __init__(self, size: int, kernel: int, dilations: list[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(NormedConv(size, size, kernel, dilation=d) for d in dilations)
        self.convs2 = nn.ModuleList(NormedConv(size, size, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(_Snake(size) for _ in dilations)
        self.activations2 = nn.ModuleList(_Snake(size) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        for act1, conv1, act2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(act2(conv1(act1(x))))
        return x
