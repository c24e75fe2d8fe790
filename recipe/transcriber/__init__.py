"""Trains nano's words: a CTC network on what the linguistic encoder emits and what it heard."""
