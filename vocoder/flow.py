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

from aqaa.vocoder.config import CfmParams, FlowConfig, MatchingConfig, RegulatorConfig
from aqaa.vocoder.conformer import ConformerEncoder
from aqaa.vocoder.estimator import Estimator
from aqaa.vocoder.padding import Mask, group_norm, masked


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

    def encode(self, tokens: Tensor, mask: Mask = None) -> Tensor:
        """Hidden states [B, N, D] of audio tokens int64 [B, N]; `mask` [B, 1, N]: no padding."""
        out: Tensor = self.encoder(self.input_embedding(tokens), mask)
        return out

    def estimate(
        self,
        tokens: Tensor,
        positions: Tensor,
        token_mask: Mask = None,
        frame_mask: Mask = None,
    ) -> Tensor:
        """The first estimate of the mel, mu [B, M, F], in the network's dtype.

        Args:
            tokens: audio tokens int64 [B, N], the voice's prompt first.
            positions: for each frame, where among the tokens it lies, float64 [F], or [B, F]
                (`token_positions` makes them).
            token_mask: which tokens are no padding, [B, 1, N].
            frame_mask: which frames are no padding, [B, 1, F].
        """
        hidden = self.encoder_proj(self.encode(tokens, token_mask))
        out: Tensor = self.length_regulator(hidden, positions, frame_mask)
        return out

    def speaker(self, embedding: Tensor) -> Tensor:
        """The U-Net's speaker condition [B, M] from x-vectors [B, 192] of any length."""
        out: Tensor = self.spk_embed_affine_layer(functional.normalize(embedding, dim=1))
        return out

    def sample(
        self,
        mu: Tensor,
        noise: Tensor,
        speaker: Tensor,
        cond: Tensor,
        steps: int,
        mask: Mask = None,
    ) -> Tensor:
        """Mel float32 [B, M, F]: from the noise along the learnt velocity, in `steps` Euler steps.

        Args:
            mu: the first estimate, [B, M, F].
            noise: where the path begins, N(0, temperature^2), float32 [B, M, F].
            speaker: from `speaker`, [B, M].
            cond: mel of the known (prompt) frames, zero elsewhere, [B, M, F].
            steps: Euler steps.
            mask: which frames are no padding, [B, 1, F].
        """
        return self.decoder.solve(mu, noise, speaker, cond, steps, mask)


class LengthRegulator(nn.Module):
    """Token-rate features to frame-rate ones: linear interpolation, then a few convolutions."""

    def __init__(self, config: RegulatorConfig) -> None:
        super().__init__()
        size = config.channels
        layers: list[nn.Module] = []
        for _ in config.sampling_ratios:
            layers += [nn.Conv1d(size, size, 3, padding=1), nn.GroupNorm(1, size), nn.Mish()]
        self.model = nn.Sequential(*layers, nn.Conv1d(size, size, 1))

    def forward(self, x: Tensor, positions: Tensor, mask: Mask = None) -> Tensor:
        """Features [B, M, F] at `positions`, [F] or [B, F], of x [B, N, M]; `mask` [B, 1, F]."""
        positions = positions.to(x.device).expand(x.shape[0], -1)
        left = positions.floor().long().clamp(0, x.shape[1] - 1)
        right = (left + 1).clamp(max=x.shape[1] - 1)
        weight = (positions - left).to(x)[..., None]
        row = torch.arange(x.shape[0], device=x.device)[:, None]
        y = torch.lerp(x[row, left], x[row, right], weight).transpose(1, 2)
        for layer in self.model:
            if isinstance(layer, nn.GroupNorm):
                y = group_norm(layer, y, mask)
            else:
                y = layer(masked(y, mask) if isinstance(layer, nn.Conv1d) else y)
        return y


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

    def __init__(self, config: MatchingConfig) -> None:
        super().__init__()
        self.params: CfmParams = config.cfm_params
        self.estimator = Estimator(config.estimator)

    def solve(
        self,
        mu: Tensor,
        noise: Tensor,
        speaker: Tensor,
        cond: Tensor,
        steps: int,
        mask: Mask = None,
    ) -> Tensor:
        """See `Flow.sample`. The path is followed in the noise's dtype, not in the network's."""
        rate = self.params.inference_cfg_rate
        times = cosine_times(steps).tolist()
        x = noise
        if rate > 0.0:  # the second half of the batch is unconditional
            mu, speaker, cond = (torch.cat([a, torch.zeros_like(a)]) for a in (mu, speaker, cond))
            mask = None if mask is None else torch.cat([mask, mask])
        for now, then in pairwise(times):
            t = x.new_full((mu.shape[0],), now)
            at = x.to(mu)
            if rate > 0.0:
                both = self.estimator(torch.cat([at, at]), mu, t, speaker, cond, mask)
                told, untold = both.to(x).chunk(2)
                velocity = (1.0 + rate) * told - rate * untold
            else:
                velocity = self.estimator(at, mu, t, speaker, cond, mask).to(x)
            x = x + (then - now) * velocity
        return x


def cosine_times(steps: int) -> Tensor:
    """Times of `steps` Euler steps, float64 [steps+1]: 1 - cos(pi/2 * i/steps)."""
    return 1.0 - torch.cos(torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64) * (math.pi / 2))
