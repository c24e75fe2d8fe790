"""Training: CTC on pieces of words, from what the finished encoder emits and what it heard.

The encoder stays as it is: its states also make the linguistic tokens, which must not move. What is
trained is the server's own module (`aqaa.tokenizers.transcriber_ctc`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.evaluate.judges import word_errors
from aqaa.recipe.hearing import Hearing
from aqaa.recipe.linguistic.fbank import CHUNK_SAMPLES
from aqaa.recipe.linguistic.train import Masks, batch_features, heard
from aqaa.recipe.precision import mixed
from aqaa.recipe.speech.batches import make_batch
from aqaa.recipe.speech.phonemes import collapse
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.speech.voices import Wave
from aqaa.recipe.training import Losses, Rates, train
from aqaa.recipe.transcriber.head import head_for, spelt, with_silence
from aqaa.recipe.transcriber.pieces import Spelling, joined
from aqaa.recipe.word_losses import spelling_loss
from aqaa.tokenizers.language_model import LanguageModel
from aqaa.tokenizers.transcriber_ctc import CtcHead

LENGTHS = tuple(CHUNK_SAMPLES * chunks for chunks in (13, 18, 25, 34))  # 3.1 to 8.2 s
BATCH_SECONDS = 64.0
DEVICE_BATCH_SECONDS = 256.0  # where a GPU trains: less leaves it idle between its kernels
DRAWING = 7  # processes that make rows for it; a processor makes them as it goes
CLEAN = 0.45  # the share of rows that go through no channel
DROPOUT = 0.1
MASKS = Masks(share=0.5, frames=5, mels=18, times=2)
STEPS = 9000
RATES = Rates(peak=1.5e-3, muon=0.01, final=0.02, warmup=100, betas=(0.9, 0.98))
TAIL = 0.3  # seconds of silence that a turn ends with


@dataclass(frozen=True)
class Drawn:
    """A batch of rows: their waves as heard, float32 [rows, samples], and the pieces of each."""

    waves: Tensor
    spelt: list[list[int]]


class Draws(Dataset[Drawn]):
    """What each step hears; the same for its number, whichever process draws it."""

    def __init__(self, clips: Sequence[Clip], spelling: Spelling, seconds: float, steps: int):
        self._clips, self._spelling, self._seconds, self._steps = clips, spelling, seconds, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Drawn:
        # A new batch every step: one that comes a second time has been learned by heart.
        rng = np.random.default_rng([13, step])
        rows = [
            replace(row, heard=row.clean) if rng.random() < CLEAN else row
            for row in make_batch(self._clips, self._seconds, LENGTHS, rng)
        ]
        return Drawn(heard(rows), [spelt(row, self._spelling) for row in rows])


def regularised(head: CtcHead, dropped: float = DROPOUT) -> CtcHead:
    """`head`, of whose normalised states a share is dropped in training."""

    def drop(norm: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return F.dropout(out, dropped, norm.training)

    for block in head.blocks:
        block.get_submodule("norm").register_forward_hook(drop)
    return head


def words_loss(head: CtcHead, frames: Tensor, drawn: Drawn) -> Tensor:
    """CTC a piece of what is said in `drawn`, of whose `frames` no zero ones follow yet."""
    with mixed(frames.device.type):
        pieces, _ = head(with_silence(frames))
    return spelling_loss(pieces, drawn.spelt)


def train_head(
    clips: Sequence[Clip],
    judge: Sequence[Clip],
    hearing: Hearing,
    spelling: Spelling,
    checkpoint: Path,
    steps: int = STEPS,
) -> CtcHead:
    """Train, or go on from `checkpoint`; `judge` (held-out voices) is only measured.

    It is trained where `hearing` is. Beside a GPU processes draw the rows, four times as many a
    step: `steps` are as many fewer.
    """
    torch.manual_seed(0)
    device = hearing.shift.device
    head = regularised(head_for(hearing.frame_width, spelling)).to(device)
    on_processor = device.type == "cpu"
    seconds = BATCH_SECONDS if on_processor else DEVICE_BATCH_SECONDS
    draws = Draws(clips, spelling, seconds, steps)

    def drawn(begin: int) -> Iterator[Drawn]:
        left = range(begin, steps)
        workers = 0 if on_processor else DRAWING
        return iter(DataLoader(draws, batch_size=None, sampler=left, num_workers=workers))

    ahead: list[Iterator[Drawn]] = []

    def losses(step: int) -> Losses:
        if not ahead:
            ahead.append(drawn(step))
        batch = next(ahead[0])
        rng = np.random.default_rng([17, step])
        features = batch_features(hearing, batch.waves, rng, MASKS)
        with mixed(device.type):
            frames = hearing.frames(features)
        return {"words": words_loss(head, frames, batch)}

    def errors(step: int) -> dict[str, float]:
        return word_error_rates(head, judge, hearing, spelling)

    train(
        head,
        losses,
        steps=steps,
        checkpoint=checkpoint,
        rates=RATES,
        matrices=[p for p in head.blocks.parameters() if p.ndim == 2],
        errors=errors,
    )
    return head


@torch.no_grad()
def transcribe(head: CtcHead, hearing: Hearing, spelling: Spelling, wave: Wave) -> str:
    """The words of one wave, greedy."""
    tail = np.pad(wave, (0, int(TAIL * 16_000)))
    whole = np.pad(tail, (0, -len(tail) % CHUNK_SAMPLES))
    rows, _ = head(with_silence(hearing.frames(hearing.heard(whole[None]))))
    numbers = collapse(rows[0].argmax(-1).tolist())
    return joined(spelling.pieces[number] for number in numbers)


def word_error_rates(
    head: CtcHead, clips: Sequence[Clip], hearing: Hearing, spelling: Spelling
) -> dict[str, float]:
    """Word error rate in percent of every voice."""
    head.eval()
    wrong: dict[str, list[int]] = {}
    for clip in clips:
        recognised = transcribe(head, hearing, spelling, clip.wave)
        entry = wrong.setdefault(clip.voice, [0, 0])
        errors, words = word_errors(normalise(clip.text), recognised)
        entry[0] += errors
        entry[1] += words
    return {name: round(100 * errors / words, 1) for name, (errors, words) in wrong.items()}


def go_on_from(bundled: Path, kept: Path) -> None:
    """Checkpoints in `kept` of the networks that `export` wrote; those that are there stay."""
    for file, checkpoint in (("model", "head.pt"), ("language", "language.pt")):
        if not (kept / checkpoint).exists():
            weights = load_file(bundled / f"{file}.safetensors")
            model = {name: weight.float() for name, weight in weights.items()}
            torch.save({"model": model, "step": 0}, kept / checkpoint)


def export(head: CtcHead, language: LanguageModel, spelling: Spelling, folder: Path) -> None:
    """Write the bundle's `[transcriber]` folder: weights in half precision, and the pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    for network, file in ((head, "model.safetensors"), (language, "language.safetensors")):
        weights = {
            name: w.detach().cpu().half().contiguous() for name, w in network.state_dict().items()
        }
        save_file(weights, folder / file)
    text = json.dumps(spelling.pieces, ensure_ascii=False)
    (folder / "pieces.json").write_text(text, encoding="utf-8")
