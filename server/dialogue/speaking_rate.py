"""How long a text takes to say: an estimate, where the model does not tell.

The decoder writes ten text ids for every 0.36 s of sound, so its text runs far ahead of its voice,
and nothing in the stream says which word a group belongs to. Captions and barge-in use this rate.
"""

from __future__ import annotations

import unicodedata

from aqaa.models.groups import GROUP_SECONDS

CHARACTERS_PER_SECOND = 15.0  # English read aloud: 150-160 words a minute, 5.7 characters each
IDEOGRAPHS_PER_SECOND = 4.5  # Mandarin and Japanese: about as many characters as syllables


def spoken_groups(text: str) -> float:
    """About how many audio groups (of 120 ms) `text` is spoken in."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    seconds = (len(text) - wide) / CHARACTERS_PER_SECOND + wide / IDEOGRAPHS_PER_SECOND
    return seconds / GROUP_SECONDS
