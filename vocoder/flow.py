"""Audio tokens to mel: token embedding, encoder, length regulator, conditional flow matching.

`Flow` has the published modules and tensor names (`MaskedDiffWithXvec`). Its stages are separate
methods, so that training can put a loss between them and streaming can choose frames and noise:

    mu = flow.estimate(tokens, positions)            encoder and regulator
    mel = flow.sample(mu, noise, speaker, cond)      Euler steps with guidance
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from aqaa.vocoder.config import CfmParams, DecoderConfig, FlowConfig, RegulatorConfig
from aqaa.vocoder.conformer import ConformerEncoder
from aqaa.vocoder.estimator import Estimator


class Flow(nn.Module):
    """The published flow, `flow.pt`."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, config.output_size)
        self.encoder = ConformerEncoder(config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.output_size, config.output_size)
        self.length_regulator = LengthRegulator(config.length_regulator)
        self.decoder = FlowMatching(config.decoder)

    def encode(self, tokens: Tensor) -> Tensor:
        """Hidden states float32 [B, N, D] of audio tokens int64 [B, N]."""
        out: Tensor = self.encoder(self.input_embedding(tokens))
        return out

    def estimate(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The first estimate of the mel, mu float32 [B, M, F].

        Args:
            tokens: audio tokens int64 [B, N], the voice's prompt first.
            positions: for each frame, where among the tokens it lies, float64 [F], or [B, F]
                (`token_positions` makes them).
        """
        out: Tensor = self.length_regulator(self.encoder_proj(self.encode(tokens)), positions)
        return out

    def speaker(self, embedding: Tensor) -> Tensor:
        """The U-Net's speaker condition [B, M] from x-vectors [B, 192] of any length."""
        out: Tensor = self.spk_embed_affine_layer(functional.normalize(embedding, dim=1))
        return out

    def sample(
        self, mu: Tensor, noise: Tensor, speaker: Tensor, cond: Tensor, steps: int
    ) -> Tensor:
        """Mel float32 [B, M, F]: noise carried along the learnt velocity in `steps` Euler steps.

        Args:
            mu: the first estimate, [B, M, F].
            noise: where the path begins, N(0, temperature^2), [B, M, F].
            speaker: from `speaker`, [B, M].
            cond: mel of the known (prompt) frames, zero elsewhere, [B, M, F].
            steps: Euler steps.
        """
        return self.decoder.solve(mu, noise, speaker, cond, steps)


class LengthRegulator(nn.Module):
    """Token-rate features to frame-rate ones: linear interpolation, then a few convolutions."""

    def __init__(self, config: RegulatorConfig) -> None:
        super().__init__()
        size = config.channels
        layers: list[nn.Module] = []
        for _ in config.sampling_ratios:
            layers += [nn.Conv1d(size, size, 3, padding=1), nn.GroupNorm(1, size), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(size, size, 1))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Features [B, M, F] at `positions`, [F] or [B, F], of x [B, N, M]."""
        positions = positions.to(x.device).expand(x.shape[0], -1)
        left = positions.floor().long().clamp(0, x.shape[1] - 1)
        right = (left + 1).clamp(max=x.shape[1] - 1)
        weight = (positions - left).to(x)[..., None]
        row = torch.arange(x.shape[0], device=x.device)[:, None]
        out: Tensor = self.model(torch.lerp(x[row, left], x[row, right], weight).transpose(1, 2))
        return out


def token_positions(
    first: int, frames: int, tokens: int, per_frame: float, skipped: int = 0
) -> Tensor:
    """Where frames first ... first+frames-1 lie among `tokens` tokens, float64 [frames].

    Centres are matched (`F.interpolate(mode="linear", align_corners=False)`): frame f lies at
    (f + 1/2) * per_frame - 1/2 tokens, less those `skipped`, held inside the sequence.
    """
    centres = torch.arange(first, first + frames, dtype=torch.float64) + 0.5
    return (centres * per_frame - 0.5 - skipped).clamp(0.0, max(tokens - 1.0, 0.0))


class FlowMatching(nn.Module):
    """`flow.decoder`: the ODE around the estimator."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.params: CfmParams = config.cfm_params
        self.estimator = Estimator(config.estimator)

    def solve(self, mu: Tensor, noise: Tensor, speaker: Tensor, cond: Tensor, steps: int) -> Tensor:
        """See `Flow.sample`."""
        rate = self.params.inference_cfg_rate
        times = cosine_times(steps).tolist()
        x = noise
        if rate > 0.0:  # the second half of the batch is unconditional
            mu, speaker, cond = (torch.cat([a, torch.zeros_like(a)]) for a in (mu, speaker, cond))
        for now, then in pairwise(times):
            t = x.new_full((mu.shape[0],), now)
            if rate > 0.0:
                told, untold = self.estimator(torch.cat([x, x]), mu, t, speaker, cond).chunk(2)
                velocity = (1.0 + rate) * told - rate * untold
            else:
                velocity = self.estimator(x, mu, t, speaker, cond)
            x = x + (then - now) * velocity
        return x


def cosine_times(steps: int) -> Tensor:
    """Times of `steps` Euler steps, float64 [steps+1]: 1 - cos(pi/2 * i/steps)."""
    return 1.0 - torch.cos(torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64) * (math.pi / 2))
