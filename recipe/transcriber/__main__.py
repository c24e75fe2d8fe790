"""`python -m aqaa.recipe.transcriber`: train the words on the bundle's encoder, and what language
they are in; export."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from aqaa.models.bundle import nano_path
from aqaa.recipe.decoder.corpus import question_plan, said_once
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.hearing import Hearing
from aqaa.recipe.speech.cache import work_dir
from aqaa.recipe.speech.corpus import packed
from aqaa.recipe.transcriber.language import texts, train_language
from aqaa.recipe.transcriber.pieces import corpus_pieces
from aqaa.recipe.transcriber.train import STEPS, export, go_on_from, train_head

ASKED = 2  # how many times as often as a command or any other sentence a question is heard


def main() -> None:
    """Parse the command line, train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=nano_path() / "transcriber")
    parser.add_argument(
        "--from-bundle", action="store_true", help="go on from the networks that the bundle has"
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="that trains; on another (cuda) a step hears four times as much",
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    clips, judge = packed()
    asked = {utterance.text for utterance in question_plan(load_domain())}.difference(said_once())
    heard = [clip for clip in clips for _ in range(ASKED if clip.text in asked else 1)]
    hearing = Hearing(nano_path() / "Step-Audio-Tokenizer", arguments.device)
    spelling = corpus_pieces()
    kept = work_dir() / "transcriber"
    if arguments.from_bundle:
        go_on_from(nano_path() / "transcriber", kept)
    language = train_language(texts(), spelling, kept / "language.pt")
    head = train_head(heard, judge, hearing, spelling, kept / "head.pt", arguments.steps)
    export(head, language, spelling, arguments.out)


if __name__ == "__main__":
    main()
