"""Trains nano's semantic tokenizer: a chunk-causal CosyVoice-1.0 encoder, 4,096 codes."""
