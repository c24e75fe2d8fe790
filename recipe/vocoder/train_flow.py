"""Tokens to mel, on windows like those of a stream.

A stream never shows the flow a whole utterance: it sees [voice prompt | left context | chunk]. So
training draws windows of many lengths, half of them behind a prompt of the same voice, with the
prompt's and sometimes the context's mel given as condition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from aqaa.models.groups import AUDIO_CODES, GROUP_TOKENS, LINGUISTIC_CODES, LINGUISTIC_PER_GROUP
from aqaa.recipe.decoder.text import HAPPY_VOICE, OTHER_VOICE, SAD_VOICE
from aqaa.recipe.precision import mixed
from aqaa.recipe.speech.voices import TEACHER
from aqaa.recipe.training import Losses, Rates, train
from aqaa.recipe.vocoder.pairs import Piece
from aqaa.recipe.vocoder.settings import GROUP_FRAMES, TOKENS_PER_FRAME
from aqaa.vocoder.flow import Flow, token_positions

BATCH_FRAMES = 1600  # mel frames a batch, about 19 s
WINDOW_GROUPS = (3, 22)  # 0.36 to 2.6 s
PROMPT_GROUPS = (7, 12)
PROMPTED = 0.6  # of the batches
FROM_NOTHING = Rates(muon=0.008)
PRIOR_BATCH_FRAMES, PRIOR_PEAK = 3200, 2e-3
SMALLEST_MATRIX = 32  # the shorter side; what is smaller is AdamW's
KNOWN_CONTEXT = 0.5  # of the prompted windows begin with up to half of known mel
WRONG_TOKENS = 0.02  # replaced by random ones: the decoder errs too
PRIOR_WEIGHT = 1.0  # of the L1 that makes mu a mel by itself
SHARES = {TEACHER: 0.6, OTHER_VOICE: 0.16, HAPPY_VOICE: 0.12, SAD_VOICE: 0.12}  # of the windows
TEMPO_SHARE = 0.2  # of joe's
EMBEDDING = 192


def speaker_embedding(name: str) -> Tensor:
    """The fixed x-vector of a voice: a random direction, float32 [192], norm 1.

    There is no trained speaker encoder here; a voice carries this vector in its file.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    vector = np.random.default_rng(seed).standard_normal(EMBEDDING)
    return torch.from_numpy(vector / np.linalg.norm(vector)).float()


def seed_embeddings(flow: Flow, codebooks: Sequence[NDArray[np.float32]]) -> None:
    """Let codes that sound alike begin alike.

    A code is seen a few dozen times in the whole training: from random vectors the flow learns
    nothing of its sound (tried: 800 steps, not a word could be understood).

    Args:
        codebooks: the tokenizers' own vectors, [1024, D] and [4096, D'], in the tokens' order.
    """
    table = flow.input_embedding.weight
    size, first = table.shape[1], 0
    with torch.no_grad():
        table.mul_(0.05)
        for sign, codes in zip((1.0, -1.0), codebooks, strict=True):
            centred = codes - codes.mean(0)
            _, spread, axes = np.linalg.svd(centred, full_matrices=False)
            kept = min(size - 1, len(spread))
            main = torch.from_numpy(centred @ axes[:kept].T).float()
            table[first : first + len(codes), :kept] += main / main.std()
            table[first : first + len(codes), -1] += sign  # which codebook it is of
            first += len(codes)


def train_prior(flow: Flow, data: list[Piece], steps: int, checkpoint: Path) -> None:
    """Fit the encoder's half of `flow` by itself, to joe's mels: cheap, and what is understood."""
    draw = _Windows([p for p in data if p.voice == TEACHER], PRIOR_BATCH_FRAMES, prompted=0.0)

    def losses(step: int) -> Losses:
        batch = draw()
        with mixed():
            mu = _estimate(flow, batch)
        return {"l1": functional.l1_loss(mu.float(), batch.mel)}

    if not checkpoint.exists():
        _begin_at_mean(flow, data)
    flow.decoder.requires_grad_(False)
    rates = Rates(peak=PRIOR_PEAK, muon=FROM_NOTHING.muon)
    matrices = _matrices(flow)
    train(flow, losses, steps=steps, checkpoint=checkpoint, rates=rates, matrices=matrices)
    flow.decoder.requires_grad_(True)


def train_flow(
    flow: Flow,
    data: list[Piece],
    steps: int,
    checkpoint: Path,
    rates: Rates = FROM_NOTHING,
) -> None:
    """Fit the whole flow to `data`."""
    draw = _Windows(data, BATCH_FRAMES, PROMPTED)
    train(
        flow,
        lambda step: one_step_losses(flow, draw()),
        steps=steps,
        checkpoint=checkpoint,
        rates=rates,
        matrices=_matrices(flow),
    )


@torch.inference_mode()
def render(
    flow: Flow, tokens: Tensor, speaker: Tensor, *, steps: int, temperature: float
) -> Tensor:
    """Mel float32 [80, F] of whole-utterance `tokens` without a prompt, by x-vector `speaker`."""
    frames = int(len(tokens) // GROUP_TOKENS * GROUP_FRAMES)
    places = token_positions(0, frames, len(tokens), TOKENS_PER_FRAME)
    mu = flow.estimate(tokens[None], places)
    noise = temperature * torch.randn_like(mu)
    return flow.sample(mu, noise, flow.speaker(speaker[None]), torch.zeros_like(mu), steps)[0]


def one_step_losses(flow: Flow, batch: Batch) -> Losses:
    """L1 of the first estimate, and of the mel that one Euler step from zero noise makes of it.

    The estimate does not know the speaker, so it is judged by joe's mels alone. Only the path's
    beginning is trained, x = 0 at t = 0, whose velocity is the mel itself; the bundle asks for one
    step at temperature 0. Noisy paths want many more steps of training than a tiny
    flow's budget has (tried, see the log), and the estimate is as intelligible without.
    """
    begin = torch.zeros(len(batch.mel))
    cond = batch.mel * batch.known[:, None]
    with mixed():
        mu = _estimate(flow, batch).float()
        speaker = flow.speaker(batch.speaker)
        mel = flow.decoder.estimator(torch.zeros_like(mu), mu, begin, speaker, cond).float()
    error = (mel - batch.mel).abs().mean(1)
    unknown = 1.0 - batch.known
    guess = (mu - batch.mel).abs().mean(1)
    frames = guess.shape[1]
    return {
        "prior": PRIOR_WEIGHT * (guess * batch.joe[:, None]).sum() / (frames * batch.joe.sum() + 1),
        "mel": (error * unknown).sum() / unknown.sum(),
    }


def _matrices(flow: Flow) -> list[nn.Parameter]:
    """The weights of layers and convolutions; not the codes' vectors, of which a step sees few."""
    codes = id(flow.input_embedding.weight)
    return [
        p
        for p in flow.parameters()
        if id(p) != codes
        and p.requires_grad
        and p.ndim > 1
        and min(p.flatten(1).shape) >= SMALLEST_MATRIX
    ]


def _begin_at_mean(flow: Flow, data: list[Piece]) -> None:
    mean = torch.cat([p.mel for p in data], dim=1).mean(1)
    with torch.no_grad():
        for name, value in flow.named_parameters():
            if name.endswith(("length_regulator.model.12.bias", "final_proj.bias")):
                value.copy_(mean)


def _estimate(flow: Flow, batch: Batch) -> Tensor:
    """mu [B, 80, F], each row at its own positions."""
    hidden = flow.encoder_proj(flow.encode(batch.tokens))
    mu: Tensor = flow.length_regulator.model(_gather(hidden, batch.positions).transpose(1, 2))
    return mu


def _gather(hidden: Tensor, positions: Tensor) -> Tensor:
    """hidden [B, N, M] interpolated at positions [B, F]: [B, F, M]."""
    left = positions.floor().long()
    right = (left + 1).clamp(max=hidden.shape[1] - 1)
    weight = (positions - left).to(hidden)[..., None]
    wide = hidden.shape[-1]

    def pick(at: Tensor) -> Tensor:
        return hidden.gather(1, at[..., None].expand(-1, -1, wide))

    return torch.lerp(pick(left), pick(right), weight)


class Batch:
    """Windows of one shape: tokens int64 [B, N], positions float64 [B, F], mel [B, 80, F],
    known [B, F] (1 where the mel is given as condition), speaker [B, 192], joe [B] (1 for his own).
    """

    def __init__(self, rows: list[tuple[Tensor, ...]]) -> None:
        self.tokens, self.positions, self.mel, self.known, self.speaker, self.joe = (
            torch.stack(column) for column in zip(*rows, strict=True)
        )


class _Windows:
    """Draws batches from torch's global generator, which `train` seeds for every step."""

    def __init__(self, data: list[Piece], frames: int, prompted: float) -> None:
        self.data = data
        self.frames = frames
        self.prompted = prompted
        self.groups = torch.tensor([len(p.tokens) // GROUP_TOKENS for p in data])
        self.embedding = {p.voice: speaker_embedding(p.voice) for p in data}
        self.of_voice: dict[str, list[int]] = {}
        for i, piece in enumerate(data):
            self.of_voice.setdefault(piece.voice, []).append(i)
        often = torch.tensor([p.stress for p in data], dtype=torch.float64)
        self.weight = torch.zeros(len(data), dtype=torch.float64)
        for voice, places in self.of_voice.items():
            stretched = [i for i in places if data[i].tempo != "plain"]
            plain = [i for i in places if data[i].tempo == "plain"]
            for part, share in (
                (plain, 1 - TEMPO_SHARE if stretched else 1.0),
                (stretched, TEMPO_SHARE),
            ):
                long = self.groups[part] * often[part]
                self.weight[part] = SHARES[voice] * share * long / long.sum()

    def __call__(self) -> Batch:
        window = _randint(*WINDOW_GROUPS)
        prompt = _randint(*PROMPT_GROUPS) if torch.rand(()) < self.prompted else 0
        fit = self.groups >= window
        chosen = torch.multinomial(
            self.weight * fit,
            max(4, int(self.frames / ((window + prompt) * GROUP_FRAMES))),
            replacement=True,
        )
        return Batch([self._row(i, window, prompt) for i in chosen.tolist()])

    def _row(self, index: int, window: int, prompt: int) -> tuple[Tensor, ...]:
        piece = self.data[index]
        tokens, positions, mel = _cut(piece, window)
        known = torch.zeros(mel.shape[1])
        if prompt:
            mates = [i for i in self.of_voice[piece.voice] if self.groups[i] >= prompt] or [index]
            mate = self.data[mates[_randint(0, len(mates) - 1)]]
            before, places, heard = _cut(mate, min(prompt, len(mate.tokens) // GROUP_TOKENS))
            if torch.rand(()) < KNOWN_CONTEXT:
                known[: _randint(0, len(known) // 2)] = 1.0
            tokens = torch.cat([before, tokens])
            positions = torch.cat([places, positions + len(before)])
            mel = torch.cat([heard, mel], dim=1)
            known = torch.cat([torch.ones(heard.shape[1]), known])
        joe = torch.tensor(float(piece.voice == TEACHER))
        return _spoil(tokens), positions, mel, known, self.embedding[piece.voice], joe


def _cut(piece: Piece, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """A random window of whole groups: tokens, the frames' places among them, the frames.

    It is drawn as if it might reach beyond either end, and then moved inside: so the first group,
    which decides the first word, is seen as often as any other.
    """
    last = len(piece.tokens) // GROUP_TOKENS - 1
    first = min(max(_randint(1 - groups, last), 0), last + 1 - groups)
    begin, frames = int(first * GROUP_FRAMES), int(groups * GROUP_FRAMES)
    tokens = piece.tokens[first * GROUP_TOKENS :][: groups * GROUP_TOKENS]
    everywhere = token_positions(begin, frames, len(piece.tokens), TOKENS_PER_FRAME)
    places = (everywhere - first * GROUP_TOKENS).clamp(0, len(tokens) - 1)
    return tokens, places, piece.mel[:, begin : begin + frames]


def _spoil(tokens: Tensor) -> Tensor:
    """`tokens` with a few replaced by others of the same codebook."""
    place = torch.arange(len(tokens)) % GROUP_TOKENS
    other = torch.where(
        place < LINGUISTIC_PER_GROUP,
        torch.randint(LINGUISTIC_CODES, tokens.shape),
        torch.randint(LINGUISTIC_CODES, AUDIO_CODES, tokens.shape),
    )
    return torch.where(torch.rand(tokens.shape) < WRONG_TOKENS, other, tokens)


def _randint(low: int, high: int) -> int:
    """Uniform in [low, high]."""
    return int(torch.randint(low, high + 1, ()))
