"""After training: preference between what should be said and what the decoder says instead.

Pairs come from its own samples: the taught answer against one whose words are others. Direct
preference optimisation (Rafailov et al. 2023) moves the decoder from the latter to the former, near
a reference, the decoder as it was. As published for Step-Audio-AQAA audio ids have no part in the
loss: they are many, and how an answer sounds is not what is preferred. In the end the weights are a
merge of before and after, in the shares that answer best on the training side.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from aqaa.recipe.decoder.layout import Talk
from aqaa.recipe.decoder.model import Decoder
from aqaa.recipe.decoder.sampler import Sampler
from aqaa.recipe.training import Losses, Rates, between, train

log = logging.getLogger(__name__)
SAMPLES = 4  # of each prompt
TEMPERATURE = 1.0
BETA = 0.1  # of the loss: how dear it is to leave the reference
LIKELIHOOD = 0.2  # weight of the taught words' own loss, so that they do not grow less likely too
RATES = Rates(peak=1e-4, warmup=20, betas=(0.9, 0.98))
BATCH = 16  # pairs
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the weights before, in a merge


@dataclass(frozen=True)
class Pair:
    """A prompt, and two answers to it, as ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def split(talk: Talk) -> tuple[list[int], list[int]]:
    """The prompt of the last answer of `talk`, and the answer: what is predicted at its end."""
    start = len(talk.ids)
    while start and talk.weights[start - 1] > 0:
        start -= 1
    return talk.ids[:start], talk.ids[start:]


def text_of(ids: Sequence[int], audio_offset: int) -> list[int]:
    """`ids` without audio."""
    return [token for token in ids if token < audio_offset]


@torch.no_grad()
def sample(
    model: Decoder, prompt: Sequence[int], count: int, length: int, temperature: float
) -> list[list[int]]:
    """`count` answers of `length` ids to one prompt; at temperature 0 the likeliest."""
    ids = torch.tensor([list(prompt)] * count)
    for _ in range(length):
        logits = model.logits(ids)[:, -1]
        if temperature:
            drawn = torch.multinomial((logits / temperature).softmax(-1), 1)
        else:
            drawn = logits.argmax(-1, keepdim=True)
        ids = torch.cat([ids, drawn], 1)
    answers: list[list[int]] = ids[:, len(prompt) :].tolist()
    return answers


def draw_pairs(model: Decoder, sampler: Sampler, prompts: int) -> list[Pair]:
    """Pairs from `prompts` of the sampler's talks; none where every sample has the right words."""
    offset = sampler.layout.tokens.audio_offset
    found: list[Pair] = []
    for _ in range(prompts):
        prompt, taught = split(sampler.talk())
        wanted = text_of(taught, offset)
        answers = sample(model, prompt, SAMPLES, len(taught), TEMPERATURE)
        wrong = [a for a in answers if text_of(a, offset)[: len(wanted)] != wanted]
        if wrong:
            found.append(Pair(tuple(prompt), tuple(taught), tuple(wrong[0])))
    return found


def text_log_probabilities(
    model: Decoder, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], offset: int
) -> Tensor:
    """[B]: the sum over the text ids of every answer, given all that is before each."""
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    counted = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = torch.tensor([*prompt, *answer])
        ids[row, : len(whole)] = whole
        counted[row, len(prompt) : len(whole)] = whole[len(prompt) :] < offset
    scores = model.logits(ids)[:, :-1].log_softmax(-1)
    each = scores.gather(2, ids[:, 1:, None])[..., 0]
    return (each * counted[:, 1:]).sum(1)


def preference_loss(
    model: Decoder, reference: Decoder, pairs: Sequence[Pair], offset: int
) -> Losses:
    """DPO's loss on text ids, and a little of the chosen answers' own."""
    prompts = [pair.prompt for pair in pairs]
    chosen, rejected = [p.chosen for p in pairs], [p.rejected for p in pairs]
    good = text_log_probabilities(model, prompts, chosen, offset)
    bad = text_log_probabilities(model, prompts, rejected, offset)
    with torch.no_grad():
        before = text_log_probabilities(reference, prompts, chosen, offset)
        before = before - text_log_probabilities(reference, prompts, rejected, offset)
    words = sum(len(text_of(answer, offset)) for answer in chosen)
    return {
        "preference": -F.logsigmoid(BETA * (good - bad - before)).mean(),
        "likelihood": -LIKELIHOOD * good.sum() / words,
    }


def prefer(
    model: Decoder, pairs: Sequence[Pair], offset: int, steps: int, checkpoint: Path
) -> Decoder:
    """`model` after `steps` of preference, or going on from `checkpoint`; it is not changed."""
    reference = copy.deepcopy(model).eval()
    policy = copy.deepcopy(model)

    def losses(step: int) -> Losses:
        places = torch.randint(len(pairs), (BATCH,)).tolist()
        return preference_loss(policy, reference, [pairs[place] for place in places], offset)

    train(policy, losses, steps=steps, checkpoint=checkpoint, rates=RATES)
    return policy


def share_right(model: Decoder, talks: Sequence[Talk], offset: int) -> float:
    """The share of talks whose last answer has the taught words, the likeliest id each time."""
    right = 0
    for talk in talks:
        prompt, taught = split(talk)
        (answer,) = sample(model, prompt, 1, len(taught), 0.0)
        wanted = text_of(taught, offset)
        right += text_of(answer, offset)[: len(wanted)] == wanted
    return right / max(1, len(talks))


def merge(before: Decoder, after: Decoder, talks: Sequence[Talk], offset: int) -> Decoder:
    """Of the merges of both in `SHARES` the one that answers `talks`, of training, best.

    Of equals the one with the most of `after`.
    """
    scores: dict[float, float] = {}
    for share in SHARES:
        scores[share] = share_right(between(after, before, share), talks, offset)
        log.info("%.2f of the weights before: right words %.3f", share, scores[share])
    best = max(SHARES, key=lambda share: (scores[share], -share))
    return between(after, before, best)
