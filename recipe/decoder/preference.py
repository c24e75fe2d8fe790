"""After training: preference between what should be said and what the decoder says instead.

Pairs come from its own samples: the taught answer against one whose words are others. Direct
preference optimisation (Rafailov et al. 2023) moves the decoder from the latter to the former, near
a reference, the decoder as it was. As published for Step-Audio-AQAA audio ids have no part in the
loss: they are many, and how an answer sounds is not what is preferred. In the end the weights are a
merge of before and after, in the shares that answer best on the training side, asked in sentences
that no pair came from: of those that they did come from all is learned by heart.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from aqaa.recipe.decoder.layout import Talk
from aqaa.recipe.decoder.model import Decoder
from aqaa.recipe.decoder.sampler import Sampler
from aqaa.recipe.precision import mixed
from aqaa.recipe.training import Losses, Rates, between, train
from aqaa.server.engine.embedded.step1 import Step1

log = logging.getLogger(__name__)
SAMPLES = 4  # of each prompt
TEMPERATURE = 1.0
BETA = 0.1  # of the loss: how dear it is to leave the reference
LIKELIHOOD = 0.5  # weight of the taught words' own loss, so that they do not grow less likely too
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


def sample(
    model: Step1, prompt: Sequence[int], count: int, length: int, temperature: float
) -> list[list[int]]:
    """`count` answers of `length` ids to one prompt; at temperature 0 the likeliest."""
    begun = model.empty_cache(len(prompt) + length)
    hidden = model.forward(torch.tensor(prompt), begun, 0)[-1:].expand(count, -1)
    caches = [begun.clone() for _ in range(count)]
    drawn: list[Tensor] = []
    for place in range(len(prompt), len(prompt) + length):
        logits = model.logits(hidden)
        if temperature:
            ids = torch.multinomial((logits / temperature).softmax(-1), 1)[:, 0]
        else:
            ids = logits.argmax(-1)
        drawn.append(ids)
        hidden = model.step(ids, caches, [place] * count)
    answers: list[list[int]] = torch.stack(drawn, 1).tolist()
    return answers


def draw_pairs(model: Decoder, sampler: Sampler, prompts: int) -> list[Pair]:
    """Pairs from `prompts` of the sampler's talks: the words taught, and what is said instead.

    That is the answer with the most frequent of all wrong words; no pair where all are right.
    """
    offset, swift = sampler.layout.tokens.audio_offset, serving(model)
    found: list[Pair] = []
    for _ in range(prompts):
        prompt, taught = split(sampler.talk())
        wanted = text_of(taught, offset)
        answers = sample(swift, prompt, SAMPLES, len(taught), TEMPERATURE)
        words = [tuple(text_of(answer, offset)[: len(wanted)]) for answer in answers]
        wrong = Counter(said for said in words if said != tuple(wanted))
        if wrong:
            ((worst, _),) = wrong.most_common(1)
            found.append(Pair(tuple(prompt), tuple(taught), tuple(answers[words.index(worst)])))
    return found


def serving(model: Decoder) -> Step1:
    """`model` as a server has it, with a cache of what was read."""
    return Step1(model.config, model.state_dict(), model.config.max_seq_len)


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
    rows, places = counted.nonzero(as_tuple=True)
    hidden, _ = model.hidden(ids, model.attention_bias(longest))
    logits = model.lm_head(hidden[rows, places - 1])
    each = -F.cross_entropy(logits.float(), ids[rows, places], reduction="none")
    return torch.zeros(len(prompts)).index_add(0, rows, each)


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
        with mixed():
            return preference_loss(policy, reference, [pairs[place] for place in places], offset)

    train(policy, losses, steps=steps, checkpoint=checkpoint, rates=RATES)
    return policy


def share_right(model: Decoder, talks: Sequence[Talk], offset: int) -> float:
    """The share of talks whose last answer has the taught words, the likeliest id each time."""
    right, swift = 0, serving(model)
    for talk in talks:
        prompt, taught = split(talk)
        (answer,) = sample(swift, prompt, 1, len(taught), 0.0)
        wanted = text_of(taught, offset)
        right += text_of(answer, offset)[: len(wanted)] == wanted
    return right / max(1, len(talks))


def merge(before: Decoder, after: Decoder, talks: Sequence[Talk], offset: int) -> Decoder:
    """Of the merges of both in `SHARES` the one that answers `talks`, of training, best.

    Of equals the one with the most of `before`: what does not help is not shipped.
    """
    scores: dict[float, float] = {}
    for share in SHARES:
        scores[share] = share_right(between(after, before, share), talks, offset)
        log.info("%.2f of the weights before: right words %.3f", share, scores[share])
    best = max(SHARES, key=lambda share: (scores[share], share))
    return between(after, before, best)
