"""Small grammars: one line stands for many sentences.

    draw("(set|start) a timer [please]", rng)    "start a timer", "set a timer please", ...

`(a|b)` is one of its parts, `[a|b]` one of them or nothing; both may stand within each other. What
a grammar holds is drawn, not listed: a line with ten choices of three has 59,049 sentences.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

CLOSING = {"(": ")", "[": "]"}
ABSENT = 0.5  # chance that what stands in brackets is left out


def draw(line: str, rng: random.Random) -> str:
    """One sentence of `line`, with single spaces, none at its ends or before `,.?!`.

    Raises:
        ValueError: a bracket has no partner.
    """
    pieces = iter(re.findall(r"[()\[\]|]|[^()\[\]|]+", line))
    text = _choice(pieces, "", rng)
    return re.sub(r"\s+(?=[,.?!])", "", " ".join(text.split()))


def _choice(pieces: Iterator[str], end: str, rng: random.Random) -> str:
    """Reads up to the bracket `end`; one of the parts between its bars."""
    parts = [""]
    for piece in pieces:
        if piece == end:
            return rng.choice(parts)
        if piece == "|":
            parts.append("")
        elif piece in CLOSING:
            inner = _choice(pieces, CLOSING[piece], rng)
            parts[-1] += "" if piece == "[" and rng.random() < ABSENT else inner
        elif piece in CLOSING.values():
            raise ValueError(f"a {piece!r} that nothing opens")
        else:
            parts[-1] += piece
    if end:
        raise ValueError(f"a bracket that no {end!r} closes")
    return rng.choice(parts)


def sentence(text: str) -> str:
    """`text` with a capital, and a full stop where it has no end of its own."""
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ".?!" else ".")
