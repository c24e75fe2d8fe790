"""Moments that judge the turn head: voices and phrasings that nothing was trained on."""

from __future__ import annotations

import random

import numpy as np
import yaml

from aqaa.recipe.domain.load import Domain
from aqaa.recipe.evaluate.questions import HELD_OUT as PHRASINGS
from aqaa.recipe.evaluate.questions import held_out_questions
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import HELD_OUT, TEACHER
from aqaa.recipe.turn.moments import (
    BACKCHANNELS,
    INTERRUPTIONS,
    Heard,
    backchannel,
    broken,
    disturbance,
    interruption,
)

QUESTIONS = 60


def held_out_moments(domain: Domain, seed: int = 11) -> list[Heard]:
    """Of `QUESTIONS` questions and all commands of the evaluation, backchannels,
    interruptions, and noises."""
    rng = np.random.default_rng(seed)
    asked = [talk.turns[0].said for talk in held_out_questions(domain)]
    asked = random.Random(seed).sample(sorted(set(asked)), QUESTIONS)
    commands = yaml.safe_load(PHRASINGS.with_name("commands.yaml").read_text(encoding="utf-8"))
    said = [*asked, *(row["said"] for row in commands)]
    found: list[Heard] = []
    for number, text in enumerate(said):
        wave = hear(Utterance(text, HELD_OUT[number % len(HELD_OUT)]))
        found += broken(wave, text, rng)
    for number, text in enumerate(BACKCHANNELS):
        found.append(backchannel(hear(Utterance(text, HELD_OUT[number % len(HELD_OUT)])), rng))
    for number, text in enumerate(INTERRUPTIONS):
        found.append(interruption(hear(Utterance(text, HELD_OUT[number % len(HELD_OUT)])), rng))
    answers = domain.answers()[:: len(domain.answers()) // 30]
    found += [disturbance(hear(Utterance(text, TEACHER)), rng) for text in answers]
    return found
