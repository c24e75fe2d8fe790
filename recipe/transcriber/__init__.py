"""Trains nano's words: CTC on what the linguistic encoder emits and heard, and a language model."""
