"""Trains nano's linguistic tokenizer: a small Paraformer online encoder and 1,024 codes on it."""
