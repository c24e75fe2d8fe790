"""Which questions the decoder hears, in whose voices; a fixed draw, so that it is spoken once."""

from __future__ import annotations

import json
import random

from aqaa.models.recipe.domain.load import Domain
from aqaa.models.recipe.speech.cache import Utterance, work_dir
from aqaa.models.recipe.speech.voices import SPOKEN, VOICES

CHEAP_TAKES = 1  # clips of every question by voices that cost little to synthesise
NATURAL_TAKES = 2  # the same by the dear, most human voices
SHARES = {"espeak": 0.2, "flite": 0.4, "festival": 0.05, "piper": 0.35}
RATES = (0.9, 1.0, 1.0, 1.1, 1.2)
NATURAL_RATES = (0.9, 1.0, 1.1)


def question_plan(domain: Domain) -> list[Utterance]:
    """Who says which question.

    The first plan is kept in the work directory (`questions.json`), so that a later edit of the
    domain does not ask for all speech anew; delete that file to plan afresh.
    """
    file = work_dir() / "questions.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_plan(domain, seed=5)), encoding="utf-8")
    return [Utterance(*row) for row in json.loads(file.read_text(encoding="utf-8"))]


def _plan(domain: Domain, seed: int) -> list[Utterance]:
    """Each question by cheap voices and by natural ones, shuffled: any prefix is a fair sample."""
    rng = random.Random(seed)
    engines = {engine: [v for v in SPOKEN if VOICES[v].engine == engine] for engine in SHARES}
    natural = [v for v in SPOKEN if VOICES[v].engine == "kokoro"]
    questions = list(domain.questions())
    said = []
    for question in questions:
        for engine in rng.choices([*SHARES], [*SHARES.values()], k=CHEAP_TAKES):
            said.append(Utterance(question, rng.choice(engines[engine]), rng.choice(RATES)))
        for voice in rng.sample(natural, NATURAL_TAKES):
            said.append(Utterance(question, voice, rng.choice(NATURAL_RATES)))
    rng.shuffle(said)
    return said
