"""The 40 sounds that the tokenizers are taught to tell apart, and a text's sequence of them.

American pronunciation, whatever accent a voice has: the tokenizers then learn to hear past accents.
"""

from __future__ import annotations

import re

from aqaa.recipe.speech.voices import phonemise

BLANK = 0  # CTC's blank; the phonemes count from 1
PHONEMES: tuple[str, ...] = (
    "p", "b", "t", "d", "k", "ɡ", "f", "v", "θ", "ð", "s", "z", "ʃ", "ʒ", "h", "tʃ", "dʒ", "m",
    "n", "ŋ", "l", "ɹ", "j", "w", "i", "ɪ", "ɛ", "æ", "ɑ", "ɔ", "ʊ", "u", "ʌ", "ə", "ɚ", "aɪ",
    "aʊ", "eɪ", "oʊ", "ɔɪ",
)  # fmt: skip
CLASSES = len(PHONEMES) + 1

# What espeak-ng distinguishes and we do not: length, flaps, reduced vowels, rare allophones.
_MERGED = [
    ("ɜː", "ɚ"), ("ɜ", "ɚ"), ("ɚɹ", "ɚ"), ("ᵻ", "ɪ"), ("ɐ", "ə"), ("ɾ", "t"), ("ʔ", "t"), ("ː", ""),
    ("ɒ", "ɑ"), ("x", "k"), ("r", "ɹ"), ("ɬ", "l"), ("ɫ", "l"), ("̩", ""), ("̃", ""), ("ʲ", ""),
]  # fmt: skip
_ALIASES = {"o": "oʊ", "e": "eɪ", "a": "ɑ"}
_IDS = {p: i + 1 for i, p in enumerate(PHONEMES)} | {
    alias: PHONEMES.index(p) + 1 for alias, p in _ALIASES.items()
}
_PATTERN = re.compile("|".join(sorted(_IDS, key=len, reverse=True)))


def phoneme_ids(text: str) -> list[int]:
    """The phonemes of `text` as numbers from 1 to `CLASSES - 1`; stress and pauses are left out."""
    ipa = re.sub("[ˈˌ]", "", phonemise(text))
    for theirs, ours in _MERGED:
        ipa = ipa.replace(theirs, ours)
    return [_IDS[p] for p in _PATTERN.findall(ipa)]


def edit_distance(said: list[int], heard: list[int]) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions between the two."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def collapse(frames: list[int]) -> list[int]:
    """Greedy CTC: merge repeats, drop blanks."""
    return [p for i, p in enumerate(frames) if p != BLANK and (i == 0 or p != frames[i - 1])]
