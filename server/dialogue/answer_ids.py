"""How many ids an answer is made of: its text and its sound come in blocks that alternate."""

from __future__ import annotations

import math

from aqaa.models.bundle import TokensConfig
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS


def spoken_ids(tokens: TokensConfig) -> float:
    """In a second of an answer, while text goes with its sound."""
    block_seconds = tokens.audio_block / GROUP_TOKENS * GROUP_SECONDS
    return (tokens.text_block + tokens.audio_block) / block_seconds


def ids_before_groups(tokens: TokensConfig, groups: int) -> int:
    """From an answer's beginning until so many groups of audio are whole."""
    audio = groups * GROUP_TOKENS
    return audio + math.ceil(audio / tokens.audio_block) * tokens.text_block
