"""`python -m aqaa.recipe.turn`: speak, make moments of it, train, measure, export.

Resumable: shards of moments stay in the work directory; `--clips` of the corpus are used.
"""

from __future__ import annotations

import argparse
import logging
import random
from pathlib import Path

import torch

from aqaa.models.bundle import nano_path
from aqaa.recipe.decoder.prepare import codebooks
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.speech.cache import Utterance, work_dir
from aqaa.recipe.speech.corpus import spoken
from aqaa.recipe.speech.voices import VOICES
from aqaa.recipe.turn.held_out import held_out_moments
from aqaa.recipe.turn.tokens import (
    SHARD,
    Asked,
    ears,
    interjection_plan,
    load,
    make_shard,
    tokenise,
)
from aqaa.recipe.turn.train import EPOCHS, export, report, train_head, vectors_of

CLIPS = 2400
HUMAN = 0.2  # of them, the share that human voices say; each costs twenty of the others


def training_clips(count: int) -> list[Utterance]:
    """`count` of what has been spoken: as many of each voice as chance has it, `HUMAN` of them
    human, if there are so many."""
    there = spoken()
    human = [u for u in there if VOICES[u.voice].human][: round(HUMAN * count)]
    cheap = [u for u in there if not VOICES[u.voice].human][: count - len(human)]
    chosen = human + cheap
    random.Random(3).shuffle(chosen)
    return chosen


def rows_from(folder: Path, clips: list[Utterance]) -> list[Asked]:
    """The moments of `clips`, shard by shard; those that are there already are read."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Asked] = []
    for number, start in enumerate(range(0, len(clips), SHARD)):
        path = folder / f"moments-{number:03}.npz"
        if not path.exists():
            make_shard(clips[start : start + SHARD], path)
            logging.info("%s: %d clips", path.name, min(start + SHARD, len(clips)))
        rows += load(path)
    return rows


def main() -> None:
    """Parse the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the corpus")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=nano_path() / "turn")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    domain = load_domain()
    clips = [*training_clips(arguments.clips), *interjection_plan()]
    random.Random(4).shuffle(clips)
    rows = rows_from(work_dir() / "turn", clips)
    head = train_head(rows, vectors_of(*codebooks()), arguments.epochs)
    judged = tokenise(held_out_moments(domain), ears())
    measured = report(head, judged)
    for name, value in measured.items():
        logging.info("%-36s %.3f", name, value)
    export(head, measured, arguments.out)


if __name__ == "__main__":
    main()
