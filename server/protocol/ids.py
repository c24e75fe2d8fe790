"""Ids of everything that the wire names: sessions, items, responses, events, requests."""

from __future__ import annotations

import secrets


def random_id(prefix: str) -> str:
    """`prefix_` and 20 random hex digits."""
    return f"{prefix}_{secrets.token_hex(10)}"
