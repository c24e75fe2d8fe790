"""How people say what they ask: not other words for it, but what stands about the words.

Openings ("hey", "um, so"), politeness, short forms, questions put into a request, hesitations in
the middle, and restarts. All are rules: they hold for any question, of this domain or a new one.
"""

from __future__ import annotations

import random
import re

from aqaa.recipe.domain.grammar import draw, sentence

_W = str.split
OPENING = (
    "(hey|hi|hey nano|nano|[um|uh] so|so|okay|okay [um|uh]|well|um|uh|er|hmm|alright|right"
    "|excuse me|listen|yes|yeah|oh|oh hi|good morning|ah|now|also|one more thing|another question)"
)
PLEASE = "(please|thanks|thank you|if you can|for me please)"
# Nothing here begins as the evaluation's phrasings do ("can you tell me", "please tell me").
ASIDE = (
    "([and] I would like to know|I'd like to know|I was wondering|I'm wondering|do you happen to"
    " know|any idea|I need to know|would you tell me|you could tell me|I want to know)"
)
REQUEST = (
    "(could you [please]|can you [please]|would you [please]|will you|would you be so kind and)"
)
TELL = "(would you|will you|you could)"  # before "tell me" and its like
HESITATIONS = ("um,", "uh,", "er,", "hmm,", "you know,", "I mean,", "like,")
TELLING = ("tell", "name", "say", "repeat")
REQUESTS = frozenset(  # verbs that begin a request
    _W(
        "tell name say repeat give add take multiply count play set turn switch put start stop"
        " cancel lock make speak sing show call order get bring dim change write note close brew"
        " fix prepare"
    )
)
SHORT = [  # either form may be said for the other
    ("what is", "what's"), ("who is", "who's"), ("where is", "where's"), ("how is", "how's"),
    ("I would", "I'd"), ("I am", "I'm"), ("it is", "it's"), ("do not", "don't"),
    ("can not", "can't"), ("did not", "didn't"), ("that is", "that's"),
]  # fmt: skip
CHANCES = {"open": 0.5, "short": 0.4, "aside": 0.3, "please": 0.25, "pause": 0.25, "restart": 0.12}


def as_people_say(core: str, rng: random.Random) -> str:
    """`core`, one sentence, as somebody might say it; now and then it stays as it is."""
    if len(re.findall(r"[.!?]", core)) != 1:
        return core  # several sentences: where an opening goes is not known
    return dressed(_lower_first(core[:-1]), core[-1], rng)


def dressed(text: str, end: str, rng: random.Random) -> str:
    """The sentence `text`, its first letter as in the middle of one, with `end` behind it."""
    if rng.random() < CHANCES["short"]:
        text = shorten(text, rng)
    if rng.random() < CHANCES["aside"]:
        text, end = aside(text, end, rng)
    if rng.random() < CHANCES["restart"]:
        text = restart(text, rng)
    if rng.random() < CHANCES["pause"]:
        text = hesitate(text, rng)
    asked = end == "?" or text.split()[0].strip(",") in REQUESTS
    polite = asked and "please" not in text.lower() and len(text.split()) > 2
    if polite and rng.random() < CHANCES["please"]:
        text = f"{text}{rng.choice([',', ''])} {draw(PLEASE, rng)}"
    if rng.random() < CHANCES["open"]:
        text = f"{draw(OPENING, rng)}, {text}"
    return sentence(text + end)


def variants(core: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """At most `count` different ways to say `core`, none of them `core`; always the same."""
    rng = random.Random(f"{seed} {core}")
    found: dict[str, None] = {}
    for _ in range(8 * count):
        said = as_people_say(core, rng)
        if said != core:
            found[said] = None
        if len(found) == count:
            break
    return tuple(found)


def shorten(text: str, rng: random.Random) -> str:
    """One pair of words drawn together, or a short form opened."""
    places = [
        (match.span(), other)
        for one, other in [*SHORT, *((short, full) for full, short in SHORT)]
        for match in re.finditer(rf"\b{one}\b(?!')", text, re.IGNORECASE)
    ]
    if not places:
        return text
    (first, last), other = rng.choice(places)
    if text[first].isupper() and first:
        other = other[0].upper() + other[1:]
    return text[:first] + other + text[last:]


def aside(text: str, end: str, rng: random.Random) -> tuple[str, str]:
    """A question as a part of a longer sentence ("I was wondering what the moon is"), or a request
    as a question ("could you name a planet?"); both as they were where the rules do not reach.
    """
    words = text.split()
    if words[0].lower() in REQUESTS:
        how = draw(TELL if words[0].lower() in TELLING else REQUEST, rng)
        return f"{how} {text}", "." if how == "you could" else "?"
    inner = _inside(text)
    if end == "?" and inner:
        opening = draw(ASIDE, rng)
        asks = opening.split()[0] in ("do", "any", "would")
        return f"{opening} {inner}", "?" if asks else "."
    return text, end


def _inside(text: str) -> str:
    """A question in the order that it has within another sentence; "" where no rule holds."""
    text = re.sub(r"^(what|who|where)'s\b", r"\1 is", text)
    if match := re.fullmatch(r"((?:what|who|where|which|how)\b.*?) (is|are|was) (.+)", text):
        asked, verb, what = match.groups()
        if asked in ("what", "who", "where"):
            return f"{asked} {what} {verb}" if len(what.split()) < 6 else ""
        return ""  # "which planet is red": the order may stay or not, as the words mean
    if match := re.fullmatch(r"(how many \w+) does (.+) have", text):
        return "{} {} has".format(*match.groups())
    if match := re.fullmatch(r"(how many \w+) do (.+) have", text):
        return "{} {} have".format(*match.groups())
    if re.match(r"(who|what) (\w+ed|wrote|comes|made|has|goes)\b", text):
        return text
    return ""


def restart(text: str, rng: random.Random) -> str:
    """The first words twice ("what is, what is the moon")."""
    words = text.split()
    count = rng.choice((1, 1, 2, 3))
    if len(words) <= count + 1:
        return text
    first = " ".join(words[:count]).rstrip(",")
    return f"{first}, {text}"


def hesitate(text: str, rng: random.Random) -> str:
    """A filler between two words, after the first of them drawn out by a comma."""
    words = text.split()
    if len(words) < 3:
        return text
    place = rng.randrange(1, len(words))
    before = words[place - 1] if words[place - 1].endswith(",") else words[place - 1] + ","
    return " ".join([*words[: place - 1], before, rng.choice(HESITATIONS), *words[place:]])


def _lower_first(text: str) -> str:
    """A sentence's first letter small, but for "I"."""
    first = text.split()[0]
    return text if first == "I" or first.startswith("I'") else text[0].lower() + text[1:]
