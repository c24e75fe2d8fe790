"""What the decoder hears, in whose voices; a fixed draw, so that it is spoken once.

The phrasings that are written down are said by several voices each; what people make of them, and
commands to the household, of which there is no end, once.
"""

from __future__ import annotations

import functools
import json
import random
from collections import Counter

from aqaa.recipe.domain.commands import Command, draw_commands
from aqaa.recipe.domain.load import Domain
from aqaa.recipe.speech.cache import Utterance, work_dir
from aqaa.recipe.speech.voices import SPOKEN, VOICES

CHEAP_TAKES, NATURAL_TAKES = 1, 1  # clips of a question: by voices that cost little, by the human
ALONE_CHEAP, ALONE_NATURAL = 3, 3  # of one whose words no table repeats: few other clips teach it
NATURAL_ONCE = 0.6  # of what is said once, the share that a human voice says
COMMANDS = 8000
SHARES = {"espeak": 0.2, "flite": 0.4, "festival": 0.05, "piper": 0.35}
# How soon what is said comes to be spoken, next to any other question: where time allows but a part
# of the plan, that part has what no former edition heard, and is judged first.
SOON = {"order_coffee": 40.0, "command": 8.0, "refuse": 20.0}
RATES = (0.9, 1.0, 1.0, 1.1, 1.2)
NATURAL_RATES = (0.9, 1.0, 1.1)


@functools.cache
def commands() -> tuple[Command, ...]:
    """The commands that are trained on."""
    return tuple(draw_commands(COMMANDS))


def said_once() -> list[str]:
    """What one voice says: commands, and replies to nano's questions back."""
    said: dict[str, None] = {}
    for command in commands():
        said[command.said] = None
        if command.missing:
            said[command.missing.reply] = None
    return list(said)


def soon(domain: Domain) -> dict[str, float]:
    """How soon each sentence comes to be spoken (`SOON`); those that are not here: 1."""
    found: dict[str, float] = {}
    for fact in domain.facts:
        if fact.intent in SOON:
            found |= dict.fromkeys(fact.ask + fact.said, SOON[fact.intent])
    for command in commands():
        weight = SOON.get(command.call.name, SOON["command"])
        found[command.said] = weight
        if command.missing:
            found.setdefault(command.missing.reply, weight)
    return found


def question_plan(domain: Domain, seed: int = 5) -> list[Utterance]:
    """Who says which question and which command.

    The plan is kept in the work directory (`questions.json`) and only grows: what an edit of the
    domain adds is planned when it is first asked for, and nothing is spoken twice.
    """
    file = work_dir() / "questions.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    plan = [Utterance(*row) for row in kept]
    more = _missing(domain, plan, seed)
    if more:
        plan += more
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(plan), encoding="utf-8")
    return plan


def _missing(domain: Domain, plan: list[Utterance], seed: int) -> list[Utterance]:
    """What `plan` lacks of every question, shuffled: any prefix is a fair sample."""
    engines = {engine: [v for v in SPOKEN if VOICES[v].engine == engine] for engine in SHARES}
    natural = [v for v in SPOKEN if VOICES[v].engine == "kokoro"]
    have = Counter((u.text, u.voice in natural) for u in plan)
    alone = domain.alone()
    said = []
    for question in domain.questions():
        cheap, human = (
            (ALONE_CHEAP, ALONE_NATURAL) if question in alone else (CHEAP_TAKES, NATURAL_TAKES)
        )
        rng = random.Random(f"{seed} {question} {have[question, False]} {have[question, True]}")
        for engine in rng.choices(
            [*SHARES], [*SHARES.values()], k=max(0, cheap - have[question, False])
        ):
            said.append(Utterance(question, rng.choice(engines[engine]), rng.choice(RATES)))
        for voice in rng.sample(natural, max(0, human - have[question, True])):
            said.append(Utterance(question, voice, rng.choice(NATURAL_RATES)))
    single = (*domain.variants(), *domain.outside, *said_once())
    once = [text for text in single if not _have(have, text)]
    for text in once:
        rng = random.Random(f"{seed} {text}")
        if rng.random() < NATURAL_ONCE:
            said.append(Utterance(text, rng.choice(natural), rng.choice(NATURAL_RATES)))
        else:
            (engine,) = rng.choices([*SHARES], [*SHARES.values()])
            said.append(Utterance(text, rng.choice(engines[engine]), rng.choice(RATES)))
    random.Random(seed).shuffle(said)
    return said


def _have(have: Counter[tuple[str, bool]], text: str) -> bool:
    return bool(have[text, False] or have[text, True])
