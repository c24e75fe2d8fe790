"""Step-1 as a training module, in the published tensor names (SPEC 6).

The server has its own inference class; a test holds the two equal on one checkpoint. Here all is
shaped for training on a CPU: sequences of one batch are right-padded to one length, so that
causality is the only mask, and logits are computed only where there is a loss.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from aqaa.models.step1 import Step1Config, alibi_slopes
from aqaa.recipe.decoder.text import VOCABULARY
from aqaa.recipe.precision import attend

NANO = Step1Config(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=640,
    num_attention_heads=8,
    num_attention_groups=2,
    num_hidden_layers=5,
    max_seq_len=2048,
    rms_norm_eps=1e-5,
)


def sqrt_alibi(heads: int, length: int) -> Tensor:
    """The [heads, length, length] bias `-slope * sqrt(i - j)`, -inf above the diagonal."""
    distance = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    bias = -torch.tensor(alibi_slopes(heads))[:, None, None] * distance.clamp(min=0).float().sqrt()
    return bias.masked_fill(distance < 0, float("-inf"))


class Norm(nn.Module):
    """RMSNorm with a scale."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`x` with a mean square of one, scaled."""
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention; position enters through the bias alone."""

    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.heads, self.groups = config.num_attention_heads, config.num_attention_groups
        width, keys = config.hidden_size, config.num_attention_groups * config.head_dim
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` [B, T, D] and `bias` [1, H, T, T] to [B, T, D]."""
        batch, length, width = x.shape
        q = self.q_proj(x).view(batch, length, self.heads, -1).transpose(1, 2)
        k = self.k_proj(x).view(batch, length, self.groups, -1).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.groups, -1).transpose(1, 2)
        repeat = self.heads // self.groups
        k = k.repeat_interleave(repeat, dim=1)
        v = v.repeat_interleave(repeat, dim=1)
        out = attend(q, k, v, bias)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(batch, length, width))
        return mixed


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: Step1Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One pre-norm block."""

    def __init__(self, config: Step1Config, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """`x` [B, T, D] and `bias` [1, H, T, T] to [B, T, D]."""
        x = x + self.dropout(self.self_attn(self.input_layernorm(x), bias))
        out: Tensor = x + self.dropout(self.mlp(self.post_attention_layernorm(x)))
        return out


class Trunk(nn.Module):
    """Embedding, blocks and final norm: `model.*` of the checkpoint."""

    def __init__(self, config: Step1Config, dropout: float) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, dropout) for _ in range(config.num_hidden_layers))
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """The whole network; `ear` is a training-only head that must spell what it hears (CTC)."""

    bias: Tensor

    def __init__(
        self, config: Step1Config, letters: int, ear_layer: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.config, self.ear_layer = config, ear_layer
        self.model = Trunk(config, dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.ear_norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.ear = nn.Linear(config.hidden_size, letters, bias=False)
        self.register_buffer("bias", torch.zeros(0), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                layers = 2 * self.config.num_hidden_layers if residual else 1
                fan_in = weight.shape[1] if "embed" not in name else 1
                nn.init.normal_(weight, std=min(0.7 / math.sqrt(fan_in), 1.0) / math.sqrt(layers))
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def hidden(self, ids: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Last and ear states, both [B, T, D], of `ids` [B, T] under `bias` [1, H, T, T]."""
        x = self.model.embed_tokens(ids)
        heard = x
        for index, layer in enumerate(self.model.layers):
            x = layer(x, bias)
            if index + 1 == self.ear_layer:
                heard = x
        return self.model.norm(x), self.ear_norm(heard)

    def attention_bias(self, length: int) -> Tensor:
        """The [1, H, T, T] bias of `length` positions; of fewer dimensions torch is slow."""
        if self.bias.ndim < 3 or self.bias.shape[-1] < length:
            bias = sqrt_alibi(self.config.num_attention_heads, max(length, 512))
            self.bias = bias.to(self.lm_head.weight.device)
        return self.bias[None, :, :length, :length].contiguous()

    def logits(self, ids: Tensor) -> Tensor:
        """[B, T] ids to [B, T, V] logits, for tests and for judging."""
        hidden, _ = self.hidden(ids, self.attention_bias(ids.shape[1]))
        out: Tensor = self.lm_head(hidden)
        return out


def save_decoder(model: Decoder, folder: Path, *, bos: int, eos: int, pad: int) -> None:
    """Writes `config.json` and `model.safetensors` (float16) in the published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    config = asdict(model.config) | {
        "architectures": ["Step1ForCausalLM"],
        "model_type": "step1",
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "float16",
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith("ear")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load_decoder(folder: Path) -> Decoder:
    """A saved decoder as float32, without its ear."""
    model = Decoder(Step1Config.load(folder), letters=1, ear_layer=1)
    tensors = {
        name: value.float() for name, value in load_file(folder / "model.safetensors").items()
    }
    model.load_state_dict(tensors, strict=False)
    return model.eval()
