"""The training loop: conversations in, a Step-1 decoder out. Stops and goes on by checkpoint."""

from __future__ import annotations

import copy
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from aqaa.models.groups import AUDIO_CODES
from aqaa.models.step1 import Step1Config
from aqaa.recipe.decoder.clips import load_material
from aqaa.recipe.decoder.layout import Layout, Talk
from aqaa.recipe.decoder.model import Decoder, load_decoder, save_decoder
from aqaa.recipe.decoder.sampler import Mix, Sampler
from aqaa.recipe.decoder.text import CALL_MARKERS, Pieces
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.optimiser import Optimiser
from aqaa.recipe.precision import mixed
from aqaa.recipe.training import between

log = logging.getLogger(__name__)
LETTERS = " abcdefghijklmnopqrstuvwxyz"  # the ear's; CTC's blank is 0, so they count from 1
SPACE = "\u2581"  # as a piece has it
POOL = 17  # batches drawn at once, their conversations sorted by length, so that each has one
PROCESSOR = torch.device("cpu")
DEVICE_BATCH = 16_384  # ids in a batch where a GPU trains: fewer leave it idle between its kernels
DRAWING = 3  # processes that draw for it, a million ids a second each; a processor draws as it goes


@dataclass(frozen=True)
class Training:
    """What a run is made with."""

    minutes: float = 240.0  # of training, of a core or of a GPU; runs before a resume included
    batch_tokens: int = 2800
    muon_rate: float = 0.02
    adam_rate: float = 4e-3
    warmup_steps: int = 30
    decay_from: float = 0.4  # share of `minutes` after which rates fall linearly, to a 20th
    ear_weight: float = 1.0
    average: float = 0.99  # of the running mean of weights that is saved
    save_minutes: float = 3.0
    seed: int = 1
    dropout: float = 0.0  # of what each block adds
    kept: float = 0.0  # share of the weights that it began with in those that are saved


# On from a decoder that knows much: gentler, or it forgets first. No ear is trained: a saved
# decoder has none, and one begun anew would only disturb what is there.
# A half of it is kept: what a short run forgets, it knew.
FURTHER = Training(
    muon_rate=0.008,
    adam_rate=1.6e-3,
    decay_from=0.25,
    ear_weight=0.0,
    save_minutes=1.5,
    kept=0.5,
)
# The same where a GPU trains: in two minutes it sees five times what a core does in an evening, so
# it may forget and learn anew, with an ear; dropout keeps it from learning takes by heart.
FURTHER_ON_DEVICE = replace(
    FURTHER,
    muon_rate=0.012,
    adam_rate=2.4e-3,
    warmup_steps=60,
    decay_from=0.1,
    ear_weight=0.5,
    average=0.995,
    save_minutes=0.75,
    dropout=0.1,
    kept=0.0,
)
# After the run proper: gently, on what was said shortly, for hearing through noise, without an ear.
CLOSING = Training(
    minutes=12.0,
    muon_rate=0.006,
    adam_rate=1e-3,
    decay_from=0.3,
    ear_weight=0.0,
    seed=7,
    kept=0.5,
)


@dataclass
class Batch:
    """Conversations of nearly one length: [B, T] ids, and where the losses are."""

    ids: Tensor
    places: Tensor  # flat index of the positions that predict something
    targets: Tensor
    weights: Tensor
    heard: Tensor  # [N, S] flat index of spoken positions, right-padded
    heard_lengths: Tensor
    letters: Tensor  # CTC targets, concatenated
    letter_lengths: Tensor

    def on(self, device: torch.device) -> Batch:
        """The same on `device`, but for the lengths, which CTC reads on the processor."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if not field.name.endswith("lengths")
        }
        return replace(self, **moved)

    def pin_memory(self) -> Batch:
        """In memory from which a GPU copies while it computes; the loader asks for it."""
        names = [field.name for field in fields(self)]
        return Batch(**{name: getattr(self, name).pin_memory() for name in names})


def make_batch(talks: list[Talk], pad: int) -> Batch:
    """Right-pads `talks` into one batch."""
    longest = -(-max(len(talk.ids) for talk in talks) // 8) * 8
    ids = np.full((len(talks), longest), pad, np.int64)
    places, targets, weights, heard, letters = [], [], [], [], []
    for row, talk in enumerate(talks):
        line = np.asarray(talk.ids)
        ids[row, : len(line)] = line
        weight = np.asarray(talk.weights)
        learned = np.flatnonzero(weight > 0)
        places.append(row * longest + learned - 1)
        targets.append(line[learned])
        weights.append(weight[learned])
        for start, end, words in talk.heard:
            spelt = [LETTERS.index(letter) + 1 for letter in words]
            if spelt and end - start > 2 * len(spelt):
                heard.append(np.arange(row * longest + start, row * longest + end))
                letters.append(spelt)
    spoken = np.zeros((len(heard), max([len(h) for h in heard], default=0)), np.int64)
    for row, positions in enumerate(heard):
        spoken[row, : len(positions)] = positions
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(np.concatenate(places)),
        torch.from_numpy(np.concatenate(targets)),
        torch.from_numpy(np.concatenate(weights)).float(),
        torch.from_numpy(spoken),
        torch.tensor([len(h) for h in heard]),
        torch.tensor([letter for spelt in letters for letter in spelt]),
        torch.tensor([len(spelt) for spelt in letters]),
    )


def batches(sampler: Sampler, budget: int, pad: int) -> Iterator[Batch]:
    """Endless batches of at most `budget` ids."""
    while True:
        talks: list[Talk] = []
        drawn = 0
        while drawn < POOL * budget:
            talks.append(sampler.talk())
            drawn += len(talks[-1].ids)
        talks.sort(key=lambda talk: len(talk.ids))
        groups: list[list[Talk]] = [[]]
        for talk in talks:
            if groups[-1] and len(talk.ids) * (len(groups[-1]) + 1) > budget:
                groups.append([])
            groups[-1].append(talk)
        sampler.rng.shuffle(groups)
        for group in groups:
            yield make_batch(group, pad)


class Draws(IterableDataset[Batch]):
    """`batches` of a sampler; those of each process that draws are others."""

    def __init__(self, sampler: Sampler, budget: int, pad: int) -> None:
        self.sampler, self.budget, self.pad = sampler, budget, pad

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        if worker is not None:
            self.sampler.rng.seed(f"{self.sampler.rng.random()} {worker.id}")
        return batches(self.sampler, self.budget, self.pad)


def losses(model: Decoder, batch: Batch, ear_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """The answer's loss and `ear_weight` times the ear's, and what to report."""
    with mixed(batch.ids.device.type):
        hidden, heard = model.hidden(batch.ids, model.attention_bias(batch.ids.shape[1]))
        logits = model.lm_head(hidden.flatten(0, 1)[batch.places])
    logits = logits.float()
    each = F.cross_entropy(logits, batch.targets, reduction="none")
    loss = (each * batch.weights).sum() / batch.weights.sum()
    with torch.no_grad():
        text = (batch.weights > 1).float()
        right = (logits.argmax(-1) == batch.targets).float()
        report = {}
        for name, place in (("text", text), ("audio", 1 - text)):
            report[name] = (each * place).sum() / place.sum().clamp(min=1)
            report[f"{name} right"] = (right * place).sum() / place.sum().clamp(min=1)
    if ear_weight and len(batch.heard):
        scores = model.ear(heard.flatten(0, 1)[batch.heard]).log_softmax(-1).transpose(0, 1)
        lengths = batch.heard_lengths, batch.letter_lengths
        ear = F.ctc_loss(scores, batch.letters, *lengths, reduction="sum", zero_infinity=True)
        ear = ear / batch.letter_lengths.sum()
        loss = loss + ear_weight * ear
        report["ear"] = ear.detach()
    return loss, report


class Trainer:
    """One run: the model, its mean, the optimisers and the clock."""

    def __init__(self, model: Decoder, settings: Training, device: torch.device) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.mean = copy.deepcopy(model).eval()
        self.optimiser = Optimiser(
            model,
            [p for p in model.model.layers.parameters() if p.ndim == 2],
            muon_rate=settings.muon_rate,
            adam_rate=settings.adam_rate,
            betas=(0.9, 0.98),
            decay=0.0,
        )
        self.steps = 0
        self.seconds = 0.0
        self.ids = 0
        # A busy machine does not shorten a run; but what a GPU does, its processor waits for.
        self._clock = time.process_time if device.type == "cpu" else time.monotonic
        self.begin()

    def begin(self) -> None:
        """Training goes on from now: what was done since the last step is not counted."""
        self._began = self._clock()

    def rate(self) -> float:
        """The share of the full learning rate that holds now."""
        done = min(self.seconds / (60 * self.settings.minutes), 1.0)
        start = self.settings.decay_from
        fall = max(0.0, (done - start) / (1 - start)) * 0.95
        return min(1.0, (self.steps + 1) / self.settings.warmup_steps) * (1 - fall)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """One update; the losses before it."""
        loss, report = losses(self.model, batch.on(self.device), self.settings.ear_weight)
        self.model.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step(self.rate())
        keep = min(self.settings.average, (self.steps + 1) / (self.steps + 10))
        with torch.no_grad():
            means: list[Tensor] = [*self.mean.parameters()]
            now: list[Tensor] = [*self.model.parameters()]
            torch._foreach_lerp_(means, now, 1 - keep)
        self.steps += 1
        self.ids += batch.ids.numel()
        begun, self._began = self._began, self._clock()
        self.seconds += self._began - begun
        return report

    def save(self, path: Path) -> None:
        """Everything that a resumed run needs."""
        partial = path.with_suffix(".part")
        state = {
            "model": self.model.state_dict(),
            "mean": self.mean.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "clock": (self.steps, self.seconds, self.ids),
        }
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from `path`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.mean.load_state_dict(state["mean"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.seconds, self.ids = state["clock"]


def spread(codes: np.ndarray, width: int, seed: int) -> Tensor:
    """Code vectors [N, D] as [N, width] embeddings of unit variance that keep their geometry."""
    whitened = (codes - codes.mean(0)) / np.sqrt(((codes - codes.mean(0)) ** 2).mean())
    mix = np.random.default_rng(seed).standard_normal((codes.shape[1], width))
    if codes.shape[1] <= width:
        mix = np.linalg.qr(mix.T)[0].T * math.sqrt(width / codes.shape[1])
    else:
        mix /= math.sqrt(codes.shape[1])
    return torch.from_numpy(whitened @ mix).float()


def start_from_codes(
    model: Decoder, offset: int, linguistic: np.ndarray, semantic: np.ndarray
) -> None:
    """Let codes that sound alike begin alike: both codebooks, projected, as embeddings."""
    width = model.config.hidden_size
    both = torch.cat([spread(linguistic, width, 0), spread(semantic, width, 1)])
    with torch.no_grad():
        rows = model.model.embed_tokens.weight[offset : offset + len(both)]
        rows.copy_(0.25 * rows + both)


def inherit(model: Decoder, former: Path, pieces: Pieces) -> None:
    """Let `model` begin as the decoder saved in `former` did end, whose text pieces may be others.

    Blocks and audio ids are taken as they are. A piece that both have keeps its vectors; a new one
    begins as the mean of the former's pieces that spell it, or as it was where none do (markers).
    """
    before, known = load_decoder(former), Pieces.load(former / "tokenizer.model")
    state, offset = before.state_dict(), known.model.get_piece_size()  # where audio begins
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        rows, begun = model.state_dict()[name].clone(), state[name]
        audio = slice(pieces.tokens.audio_offset, pieces.tokens.audio_offset + AUDIO_CODES)
        rows[audio] = begun[offset : offset + AUDIO_CODES]
        for piece in range(pieces.model.get_piece_size()):
            spelt = spelling(pieces.model.id_to_piece(piece), known)
            if spelt:
                rows[piece] = begun[spelt].mean(0)
        state[name] = rows
    model.load_state_dict(state | ear_of(model))


def spelling(piece: str, known: Pieces) -> list[int]:
    """The ids in `known` of one piece's text: its own if it is there, else of those that spell it.

    None of a control piece that `known` lacks, nor of what it has no letters for.
    """
    own = known.model.piece_to_id(piece)
    if not known.model.is_unknown(own) or piece == known.model.id_to_piece(own):
        return [own]
    if piece in CALL_MARKERS:
        return []
    ids = known.encode(piece.replace(SPACE, " "))
    return [token for token in ids if not known.model.is_unknown(token)]


def ear_of(model: Decoder) -> dict[str, Tensor]:
    """The ear's weights, which a saved decoder lacks."""
    return {name: w for name, w in model.state_dict().items() if name.startswith("ear")}


def train(
    config: Step1Config,
    settings: Training,
    mix: Mix,
    work: Path,
    pieces_path: Path,
    codes: tuple[np.ndarray, np.ndarray],
    out: Path,
    begin: Path | None = None,
    name: str = "decoder",
    refresh: Callable[[], None] | None = None,
    device: torch.device = PROCESSOR,
) -> None:
    """Trains until `settings.minutes` are used, saving a checkpoint and the decoder on the way.

    Args:
        config: the network.
        settings: the run.
        mix: what is drawn.
        work: the folder of the tokens, and of the checkpoint that a rerun goes on from.
        pieces_path: the text model.
        codes: linguistic centroids [1024, D] and semantic codebook [4096, D'], to start from.
        out: where `config.json` and `model.safetensors` of the mean go.
        begin: a saved decoder to start from instead, with its `tokenizer.model`.
        name: of the checkpoint.
        refresh: called before the material is read, at first and after every saving.
        device: that trains. Beside one that is not the processor, processes draw the batches.
    """
    torch.manual_seed(settings.seed)
    layout = Layout(Pieces.load(pieces_path))
    tokens = layout.tokens
    ear_layer = (config.num_hidden_layers + 1) // 2
    model = Decoder(config, len(LETTERS) + 1, ear_layer, settings.dropout)
    if begin is None:
        start_from_codes(model, tokens.audio_offset, *codes)
    else:
        inherit(model, begin, layout.pieces)
    model.to(device)
    first = copy.deepcopy(model)
    trainer = Trainer(model, settings, device)
    checkpoint = work / f"{name}.pt"
    if checkpoint.exists():
        trainer.load(checkpoint)
        log.info("going on at step %d, minute %.1f", trainer.steps, trainer.seconds / 60)
    domain = load_domain()
    saved = trainer.seconds
    totals: dict[str, Tensor] = {}
    while trainer.seconds < 60 * settings.minutes:
        # Fresh material each time: shards of questions may be added while this runs.
        if refresh is not None:
            refresh()
            trainer.begin()
        seed = random.Random(f"{settings.seed} {trainer.steps}").randrange(2**31)
        sampler = Sampler(domain, load_material(work), layout, mix, seed)
        draws = Draws(sampler, settings.batch_tokens, tokens.pad)
        beside = device.type != "cpu"
        loader = DataLoader(
            draws, batch_size=None, num_workers=DRAWING if beside else 0, pin_memory=beside
        )
        for batch in loader:
            for what, value in trainer.step(batch).items():
                totals[what] = 0.95 * totals.get(what, value) + 0.05 * value
            if trainer.steps % 25 == 0:
                numbers = "  ".join(f"{what} {value:.3f}" for what, value in totals.items())
                pace = trainer.ids / trainer.seconds
                log.info(
                    "%6d %5.1f min %5.0f ids/s  %s",
                    trainer.steps,
                    trainer.seconds / 60,
                    pace,
                    numbers,
                )
            if trainer.seconds - saved > 60 * settings.save_minutes:
                saved = trainer.seconds
                break
            if trainer.seconds > 60 * settings.minutes:
                break
        trainer.save(checkpoint)
        middle = between(trainer.mean, first, settings.kept)
        save_decoder(middle, out, bos=tokens.bos, eos=tokens.eot, pad=tokens.pad)
