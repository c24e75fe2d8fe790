"""Training: CTC on pieces of words, from the states that the finished encoder emits.

The encoder stays as it is: its states also make the linguistic tokens, which must not move. What is
trained is the server's own module (`aqaa.tokenizers.transcriber_ctc`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from aqaa.recipe.decoder.corpus import question_plan
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.evaluate.judges import word_errors
from aqaa.recipe.hearing import Hearing
from aqaa.recipe.linguistic.fbank import CHUNK_SAMPLES
from aqaa.recipe.precision import mixed
from aqaa.recipe.speech.batches import Row, make_batch
from aqaa.recipe.speech.phonemes import collapse
from aqaa.recipe.speech.store import Clip
from aqaa.recipe.speech.texts import sentences
from aqaa.recipe.speech.voices import Wave
from aqaa.recipe.training import Losses, Rates, train
from aqaa.recipe.transcriber.pieces import Spelling, joined, learn
from aqaa.recipe.word_losses import spelling_loss
from aqaa.tokenizers.transcriber_ctc import SILENCE, CtcHead

INNER, KERNEL, BLOCKS, ROWS = 256, 9, 3, 2  # 27 frames of 60 ms are heard; 33 rows a second
LENGTHS = tuple(CHUNK_SAMPLES * chunks for chunks in (13, 18, 25, 34))  # 3.1 to 8.2 s
BATCH_SECONDS = 48.0
STEPS = 6000
RATES = Rates(peak=1.5e-3, muon=0.01, final=0.02, warmup=100, betas=(0.9, 0.98))
TAIL = 0.3  # seconds of silence that a turn ends with
States = Callable[[Sequence[Wave]], Tensor]  # waves of one length -> [B, T, width]


def corpus_pieces() -> Spelling:
    """Pieces for all that is said in the corpus."""
    planned = [utterance.text for utterance in question_plan(load_domain())]
    return learn([*sorted(set(planned)), *sentences(6000)])


def head_for(width: int, spelling: Spelling) -> CtcHead:
    """A new head for an encoder of `width`."""
    return CtcHead(width, INNER, KERNEL, BLOCKS, ROWS, len(spelling.pieces))


def with_silence(states: Tensor) -> Tensor:
    """`states` [B, T, width] and the zero frames that end an utterance."""
    return F.pad(states, (0, 0, 0, SILENCE))


def spelt(row: Row, spelling: Spelling) -> list[int]:
    """The pieces of all that is said in `row`."""
    return spelling.encode(" ".join(placed.clip.text for placed in row.placed))


def train_head(
    clips: Sequence[Clip],
    judge: Sequence[Clip],
    hearing: Hearing,
    spelling: Spelling,
    checkpoint: Path,
    steps: int = STEPS,
) -> CtcHead:
    """Train, or go on from `checkpoint`; `judge` (held-out voices) is only measured."""
    torch.manual_seed(0)
    head = head_for(hearing.centroids.shape[1], spelling)

    def losses(step: int) -> Losses:
        rng = np.random.default_rng([13, step])
        rows = make_batch(clips, BATCH_SECONDS, LENGTHS, rng)
        states = with_silence(hearing.states([row.heard for row in rows]))
        with mixed():
            rows_of_pieces, _ = head(states)
        return {"words": spelling_loss(rows_of_pieces, [spelt(row, spelling) for row in rows])}

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
    rows, _ = head(with_silence(hearing.states([whole])))
    numbers = collapse(rows[0].argmax(-1).tolist())
    return joined(spelling.pieces[number] for number in numbers)


def word_error_rates(
    head: CtcHead, clips: Sequence[Clip], hearing: Hearing, spelling: Spelling
) -> dict[str, float]:
    """Word error rate in percent of every voice."""
    head.eval()
    wrong: dict[str, list[int]] = {}
    for clip in clips:
        heard = transcribe(head, hearing, spelling, clip.wave)
        entry = wrong.setdefault(clip.voice, [0, 0])
        errors, words = word_errors(normalise(clip.text), heard)
        entry[0] += errors
        entry[1] += words
    return {name: round(100 * errors / words, 1) for name, (errors, words) in wrong.items()}


def export(head: CtcHead, spelling: Spelling, folder: Path) -> None:
    """Write the bundle's `[transcriber]` folder: weights in half precision, and the pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: w.detach().half().contiguous() for name, w in head.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    text = json.dumps(spelling.pieces, ensure_ascii=False)
    (folder / "pieces.json").write_text(text, encoding="utf-8")
