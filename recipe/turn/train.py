"""Training the turn head on moments as tokens, and what it is worth: the area under its curve."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from aqaa.models.groups import GROUP_TOKENS, LINGUISTIC_CODES
from aqaa.recipe.turn.tokens import UNKNOWN, Asked
from aqaa.server.hearing.turn_head import KINDS, WEIGHTS, WIDTH, TurnHead

log = logging.getLogger(__name__)
BATCH = 128
EPOCHS = 12
RATE, DECAY = 3e-3, 0.02  # AdamW's
DROPOUT = 0.4
ROUGH = 0.15  # share of tokens replaced by others of their book: with less it is sure too often
EARLY = 2  # groups from which on the kind is asked for: 240 ms
KIND_WEIGHT = 0.3
RARE = (1.0, 3.0, 3.0)  # weights of the kinds: most moments are speech


def batch_of(rows: Sequence[Asked]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[B, G, 5] tokens padded by repeating the last group, lengths, ends, kinds."""
    longest = max(len(row.tokens) for row in rows) // GROUP_TOKENS
    groups = np.zeros((len(rows), longest, GROUP_TOKENS), np.int64)
    for line, row in zip(groups, rows, strict=True):
        mine = row.tokens.reshape(-1, GROUP_TOKENS)
        line[: len(mine)] = mine
        line[len(mine) :] = mine[-1]
    lengths = torch.tensor([len(row.tokens) // GROUP_TOKENS for row in rows])
    ends = torch.tensor([row.end for row in rows])
    kinds = torch.tensor([row.kind for row in rows])
    return torch.from_numpy(groups), lengths, ends, kinds


def losses(head: TurnHead, rows: Sequence[Asked]) -> Tensor:
    """The end's at the last group; the kind's at every group from the second on."""
    groups, lengths, ends, kinds = batch_of(rows)
    if head.training:
        groups = _roughen(groups)
    end, kind, _ = head(groups)
    last = end.gather(1, lengths[:, None] - 1)[:, 0]
    asked = ends != UNKNOWN  # of none of them, where a batch is of the shortest: backchannels
    missed = F.binary_cross_entropy_with_logits(last[asked], ends[asked].float(), reduction="sum")
    loss = missed / max(1, int(asked.sum()))
    place = torch.arange(groups.shape[1])[None]
    heard = (place < lengths[:, None]) & ((place >= EARLY - 1) | (place == lengths[:, None] - 1))
    wanted = kinds[:, None].expand_as(heard)[heard]
    return loss + KIND_WEIGHT * F.cross_entropy(kind[heard], wanted, torch.tensor(RARE))


def _roughen(groups: Tensor) -> Tensor:
    """Tokens as another microphone would have made a few of them."""
    linguistic = groups < LINGUISTIC_CODES
    other = torch.where(
        linguistic,
        torch.randint(0, LINGUISTIC_CODES, groups.shape),
        torch.randint(LINGUISTIC_CODES, 5 * LINGUISTIC_CODES, groups.shape),
    )
    return torch.where(torch.rand(groups.shape) < ROUGH, other, groups)


def vectors_of(*codebooks: NDArray[np.float32]) -> Tensor:
    """What tokens begin as, float32 [N, WIDTH]: the principal components of their codes [n, D].

    Codes that sound alike begin alike; of few clips each token alone would learn little.
    """
    found = []
    for codes in codebooks:
        left, sizes, _ = np.linalg.svd(codes - codes.mean(0), full_matrices=False)
        components = (left * sizes)[:, :WIDTH]
        found.append(components / components.std())
    return torch.from_numpy(np.concatenate(found).astype(np.float32))


def train_head(
    rows: Sequence[Asked], vectors: Tensor, epochs: int = EPOCHS, seed: int = 0
) -> TurnHead:
    """A head trained on `rows`, ready for use; `vectors`: what its tokens begin as."""
    torch.manual_seed(seed)
    head = TurnHead(DROPOUT)
    with torch.no_grad():
        head.embed.weight.copy_(vectors)
    order = np.random.default_rng(seed)
    steps = epochs * -(-len(rows) // BATCH)
    optimiser = torch.optim.AdamW(head.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps, pct_start=0.1)
    by_length = sorted(rows, key=lambda row: len(row.tokens))
    batches = [by_length[i : i + BATCH] for i in range(0, len(rows), BATCH)]
    for epoch in range(epochs):
        head.train()
        total = 0.0
        for place in order.permutation(len(batches)):
            loss = losses(head, batches[place])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item()
        log.info("epoch %d of %d: loss %.3f", epoch + 1, epochs, total / len(batches))
    return head.eval()


@torch.no_grad()
def scores(head: TurnHead, rows: Sequence[Asked]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Chance of the end, and the likeliest kind, of every row."""
    ends, kinds = [], []
    for row in rows:
        end, kind, _ = head(torch.from_numpy(row.tokens).view(1, -1, GROUP_TOKENS))
        ends.append(float(end[0, -1].sigmoid()))
        kinds.append(int(kind[0, -1].argmax()))
    return np.array(ends), np.array(kinds)


def area(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Area under the curve: how often a positive scores above a negative; a tie counts half."""
    difference = positive[:, None] - negative[None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def report(head: TurnHead, rows: Sequence[Asked]) -> dict[str, float]:
    """What the head is worth on `rows`: areas, shares, and what length alone would be worth."""
    ends, kinds = scores(head, rows)
    asked = np.array([row.end for row in rows])
    lengths = np.array([float(len(row.tokens)) for row in rows])
    whole, broken = ends[asked == 1], ends[asked == 0]
    result = {
        "auc": area(whole, broken),
        "auc of length alone": area(lengths[asked == 1], lengths[asked == 0]),
        "n": float((asked != UNKNOWN).sum()),
    }
    for share in (0.95, 0.9, 0.8):
        threshold = float(np.quantile(whole, 1 - share))
        result[f"threshold that {share:.0%} of ends pass"] = threshold
        result[f"breaks that pass it, {share:.0%}"] = float((broken >= threshold).mean())
    true = np.array([row.kind for row in rows])
    for number, name in enumerate(KINDS):
        if (true == number).any():
            result[f"{name} known for it"] = float((kinds[true == number] == number).mean())
    return result


def export(head: TurnHead, measured: dict[str, float], folder: Path) -> None:
    """The head in half precision, and what was measured of it beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.detach().half().contiguous() for name, w in head.state_dict().items()}
    save_file(weights, folder / WEIGHTS)
    rounded = {name: round(value, 4) for name, value in measured.items()}
    (folder / "measured.json").write_text(json.dumps(rounded, indent=1), encoding="utf-8")
