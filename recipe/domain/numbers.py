"""Numbers as English words, and texts brought to one form so that two spellings compare equal."""

from __future__ import annotations

import re

ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = {
    "1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth",
    "6th": "sixth", "7th": "seventh", "8th": "eighth",
}  # fmt: skip
_SPELLINGS = {
    "color": "colour", "colors": "colours", "favorite": "favourite", "gray": "grey", "ok": "okay",
    "mr": "mister", "st": "saint", "meters": "metres", "cannot": "can not", "im": "i am",
    "its": "it is", "whats": "what is", "youre": "you are",
}  # fmt: skip


def number_words(value: int) -> str:
    """`value`, 0 to 999, in words: 21 is "twenty one"."""
    if value < 20:
        return ONES[value]
    if value < 100:
        tens = TENS[value // 10 - 2]
        return tens if value % 10 == 0 else f"{tens} {ONES[value % 10]}"
    rest = "" if value % 100 == 0 else f" {number_words(value % 100)}"
    return f"{ONES[value // 100]} hundred{rest}"


def normalise(text: str) -> str:
    """Lower case, no punctuation, digits in words, one spelling: what words are compared in."""
    text = text.lower().replace("°", " degrees ").replace("+", " plus ").replace("=", " equals ")
    text = text.replace("$1", "one dollar").replace("%", " percent ").replace("’", "'")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = text.replace("'", "")
    words: list[str] = []
    for word in re.findall(r"[a-z]+|\d+(?:st|nd|rd|th)?", re.sub(r"[^a-z0-9]+", " ", text)):
        if word in _ORDINALS:
            words.append(_ORDINALS[word])
        elif word.isdigit() and int(word) < 1000:
            words.append(number_words(int(word)))
        else:
            words.append(_SPELLINGS.get(word, word))
    return " ".join(words)


def is_right(heard: str, right: tuple[tuple[str, ...], ...]) -> bool:
    """Whether every group of `right` has one of its phrases, as whole words, in `heard`."""
    padded = f" {normalise(heard)} "
    return all(any(f" {normalise(phrase)} " in padded for phrase in group) for group in right)
