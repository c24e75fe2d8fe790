"""Trains nano's words: a small CTC head on the linguistic encoder's states."""
