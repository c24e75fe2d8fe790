"""Training the language model: what is said to a household and what is asked, in its pieces.

Text costs nothing to make, so there is far more of it than is ever spoken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from aqaa.recipe.domain.commands import draw_commands
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.evaluate.household import held_out_texts
from aqaa.recipe.speech.texts import sentences
from aqaa.recipe.training import Losses, Rates, train
from aqaa.recipe.transcriber.pieces import Spelling
from aqaa.tokenizers.language_model import END, LanguageModel

WIDTH, HIDDEN = 128, 256
STEPS = 1500
BATCH = 96  # sentences
COMMANDS, PLAIN = 40_000, 12_000  # sentences drawn
SHARES = (0.35, 0.4, 0.25)  # of a batch: questions, commands, plain sentences
RATES = Rates(peak=2e-3, final=0.02, betas=(0.9, 0.99))
NOTHING = -1  # where no piece is to be guessed


def texts() -> tuple[list[str], ...]:
    """Questions, commands and replies to questions back, plain sentences; nothing held out."""
    domain = load_domain()
    commands = draw_commands(COMMANDS, seed=5)
    said = [c.said for c in commands] + [c.missing.reply for c in commands if c.missing]
    kinds = [*domain.questions(), *domain.variants()], said, sentences(PLAIN)
    held_out = held_out_texts()
    return tuple([text for text in kind if normalise(text) not in held_out] for kind in kinds)


def batch_of(sentences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """What is read and what is to be guessed, [B, T] both; a sentence begins and ends at `END`."""
    longest = 1 + max(map(len, sentences))
    read = torch.full((len(sentences), longest), END)
    guessed = torch.full((len(sentences), longest), NOTHING)
    for row, ids in enumerate(sentences):
        read[row, 1 : 1 + len(ids)] = torch.tensor(ids)
        guessed[row, : 1 + len(ids)] = torch.tensor([*ids, END])
    return read, guessed


def train_language(
    kinds: Sequence[Sequence[str]], spelling: Spelling, checkpoint: Path, steps: int = STEPS
) -> LanguageModel:
    """Train on the sentences of every kind, or go on from `checkpoint`."""
    torch.manual_seed(0)
    model = LanguageModel(len(spelling.pieces), WIDTH, HIDDEN)
    spelt = [[spelling.encode(text) for text in kind] for kind in kinds]

    def losses(step: int) -> Losses:
        rng = random.Random(f"language {step}")
        drawn = [rng.choice(kind) for kind in rng.choices(spelt, SHARES, k=BATCH)]
        read, guessed = batch_of(drawn)
        logprobs, _ = model(read)
        loss = F.nll_loss(logprobs.flatten(0, 1), guessed.flatten(), ignore_index=NOTHING)
        return {"language": loss}

    train(model, losses, steps=steps, checkpoint=checkpoint, rates=RATES)
    return model
