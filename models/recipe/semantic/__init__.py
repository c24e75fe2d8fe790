"""Trains nano's semantic tokenizer: a small chunk-causal CosyVoice-1.0 encoder with a 4,096-code VQ."""
