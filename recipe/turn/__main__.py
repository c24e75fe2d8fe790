"""`python -m aqaa.recipe.turn`: make moments of what has been spoken, train, measure, export.

Resumable: shards of moments stay in the work directory; `--clips` of the corpus are used.
"""

from __future__ import annotations

import argparse
import logging
import random
from collections import Counter
from pathlib import Path

import torch

from aqaa.models.bundle import nano_path
from aqaa.recipe.decoder.corpus import commands, question_plan
from aqaa.recipe.domain.load import Domain, load_domain
from aqaa.recipe.speech.cache import Utterance, cached_path, say_all, work_dir
from aqaa.recipe.speech.voices import VOICES
from aqaa.recipe.turn.held_out import held_out_moments
from aqaa.recipe.turn.tokens import (
    SHARD,
    Asked,
    answer_plan,
    complete,
    interjection_plan,
    load,
    make_shard,
    tokenise,
)
from aqaa.recipe.turn.train import EPOCHS, export, report, train_head

CLIPS = 4000


def training_clips(domain: Domain, count: int) -> list[Utterance]:
    """`count` of what has been spoken: the human voices first, no voice more than a tenth."""
    spoken = [u for u in question_plan(domain) if cached_path(u).exists()]
    random.Random(3).shuffle(spoken)
    spoken.sort(key=lambda u: VOICES[u.voice].engine != "kokoro")
    said: Counter[str] = Counter()
    chosen: list[Utterance] = []
    for utterance in spoken:
        if said[utterance.voice] < max(1, count // 10) and len(chosen) < count:
            chosen.append(utterance)
            said[utterance.voice] += 1
    return chosen


def rows_from(folder: Path, clips: list[Utterance], wholes: frozenset[str]) -> list[Asked]:
    """The moments of `clips`, shard by shard; those that are there already are read."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Asked] = []
    for number, start in enumerate(range(0, len(clips), SHARD)):
        path = folder / f"moments-{number:03}.npz"
        if not path.exists():
            make_shard(clips[start : start + SHARD], path, wholes)
            logging.info("%s: %d clips", path.name, min(start + SHARD, len(clips)))
        rows += load(path)
    return rows


def main() -> None:
    """Parse the command line and run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=CLIPS, help="of the corpus, at the most")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, default=nano_path() / "turn")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    domain = load_domain()
    wholes = complete(
        [*domain.questions(), *domain.variants(), *(command.said for command in commands())]
    )
    interjections = interjection_plan()
    say_all([*interjections, *answer_plan()], processes=1)
    clips = [*training_clips(domain, arguments.clips), *interjections]
    random.Random(4).shuffle(clips)
    rows = rows_from(work_dir() / "turn", clips, wholes)
    head = train_head(rows, arguments.epochs)
    judged = tokenise(held_out_moments(domain, wholes), exactly=True)
    measured = report(head, judged)
    for name, value in measured.items():
        logging.info("%-36s %.3f", name, value)
    export(head, measured, arguments.out)


if __name__ == "__main__":
    main()
