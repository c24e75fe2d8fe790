"""The published decoder's dimensions, as its config.json has them."""

from __future__ import annotations

from aqaa.models.step1 import Step1Config

OMNI = Step1Config(
    hidden_size=12288,
    intermediate_size=31232,
    num_attention_heads=96,
    num_attention_groups=8,
    num_hidden_layers=88,
    vocab_size=74752,
    max_seq_len=32768,
    rms_norm_eps=1e-5,
)
