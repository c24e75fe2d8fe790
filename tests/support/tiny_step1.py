"""A Step-1 checkpoint in the published layout with seeded random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

# Six heads are no power of two and divide by two: both kinds of slope, and tensor parallelism of 2.
CONFIG = {
    "architectures": ["Step1ForCausalLM"],
    "model_type": "step1",
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_attention_heads": 6,
    "num_attention_groups": 2,
    "num_hidden_layers": 2,
    "max_seq_len": 4096,
    "vocab_size": 1024,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def write_step1(directory: Path, *, seed: int = 0, **changes: object) -> Path:
    """Write `config.json` and `model.safetensors`; `changes` replace keys of the configuration."""
    config = {**CONFIG, **changes}
    hidden, ffn = int(config["hidden_size"]), int(config["intermediate_size"])
    groups = hidden // int(config["num_attention_heads"]) * int(config["num_attention_groups"])
    vocabulary = int(config["vocab_size"])
    generator = torch.Generator().manual_seed(seed)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * shape[-1] ** -0.5

    tensors = {
        # ids far apart, or every answer would repeat one id
        "model.embed_tokens.weight": weight(vocabulary, hidden) * hidden**0.5,
        "model.norm.weight": torch.ones(hidden),
        "lm_head.weight": weight(vocabulary, hidden) * 4,
    }
    for layer in range(int(config["num_hidden_layers"])):
        at = f"model.layers.{layer}."
        tensors |= {
            f"{at}input_layernorm.weight": torch.ones(hidden),
            f"{at}post_attention_layernorm.weight": torch.ones(hidden),
            f"{at}self_attn.q_proj.weight": weight(hidden, hidden),
            f"{at}self_attn.k_proj.weight": weight(groups, hidden),
            f"{at}self_attn.v_proj.weight": weight(groups, hidden),
            f"{at}self_attn.o_proj.weight": weight(hidden, hidden),
            f"{at}mlp.gate_proj.weight": weight(ffn, hidden),
            f"{at}mlp.up_proj.weight": weight(ffn, hidden),
            f"{at}mlp.down_proj.weight": weight(hidden, ffn),
        }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def write_step1_bundle(directory: Path, decoder: Path) -> Path:
    """An `aqaa.toml` over nothing but a decoder, for engines; `directory` again."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "aqaa.toml").write_text(
        f"""\
name = "step1"
tokenizer = {{ path = "none" }}
decoder = {{ path = "{decoder}", context = 4096 }}
vocoder = {{ path = "none" }}
voices = {{ default = "none" }}
""",
        encoding="utf-8",
    )
    return directory
