"""Both tokenizers in the published dimensions, at random weights: for what they cost."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from onnx_tokenizers import write_random
from torch import Tensor

from aqaa.models.bundle import SemanticStreaming
from aqaa.models.groups import LINGUISTIC_CODES
from aqaa.tokenizers.funasr_encoder import ChunkEncoder
from aqaa.tokenizers.linguistic import Cmvn, LinguisticTokenizer
from aqaa.tokenizers.semantic import SemanticTokenizer
from aqaa.tokenizers.semantic_network import SemanticNetwork

# SPEC 2 and 3: Paraformer-large's online encoder, and CosyVoice-1.0's speech tokenizer.
WIDTH_02, BLOCKS_02, HIDDEN_02, HEADS_02 = 512, 50, 2048, 4
WIDTH_06, BLOCKS_06, HEADS_06 = 1280, 6, 20


def published_linguistic(device: str = "cpu") -> LinguisticTokenizer:
    """Random weights in the published dimensions."""
    torch.manual_seed(0)
    settings = {
        "output_size": WIDTH_02,
        "attention_heads": HEADS_02,
        "linear_units": HIDDEN_02,
        "num_blocks": BLOCKS_02,
        "input_layer": "pe_online",
        "kernel_size": 11,
        "selfattention_layer_type": "sanm",
    }
    state: dict[str, Tensor] = {}
    for block in range(BLOCKS_02):
        name = f"encoder.encoders.{block - 1}" if block else "encoder.encoders0.0"
        width = WIDTH_02 if block else 560
        shapes = {
            "self_attn.linear_q_k_v.weight": (3 * WIDTH_02, width),
            "self_attn.linear_q_k_v.bias": (3 * WIDTH_02,),
            "self_attn.linear_out.weight": (WIDTH_02, WIDTH_02),
            "self_attn.linear_out.bias": (WIDTH_02,),
            "self_attn.fsmn_block.weight": (WIDTH_02, 1, 11),
            "feed_forward.w_1.weight": (HIDDEN_02, WIDTH_02),
            "feed_forward.w_1.bias": (HIDDEN_02,),
            "feed_forward.w_2.weight": (WIDTH_02, HIDDEN_02),
            "feed_forward.w_2.bias": (WIDTH_02,),
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "norm2.weight": (WIDTH_02,),
            "norm2.bias": (WIDTH_02,),
        }
        state |= {f"{name}.{key}": 0.02 * torch.randn(shape) for key, shape in shapes.items()}
    state["encoder.after_norm.weight"] = torch.ones(WIDTH_02)
    state["encoder.after_norm.bias"] = torch.zeros(WIDTH_02)
    cmvn = Cmvn(np.full(560, -10, np.float32), np.full(560, 0.2, np.float32))
    encoder = ChunkEncoder.load(settings, 560, state, device)
    return LinguisticTokenizer(encoder, cmvn, torch.randn(LINGUISTIC_CODES, WIDTH_02).to(device))


def published_semantic(device: str = "cpu") -> SemanticTokenizer:
    """Random weights in the published dimensions, streamed with the default window."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_random(
            Path(folder) / "speech_tokenizer_v1.onnx",
            width=WIDTH_06,
            heads=HEADS_06,
            blocks=BLOCKS_06,
        )
        return SemanticTokenizer(SemanticNetwork.load(path, device), SemanticStreaming())
