"""`python -m aqaa.recipe.linguistic`: train on the corpus, or go on; then export."""

from __future__ import annotations

import logging

import torch

from aqaa.recipe.linguistic.export import export
from aqaa.recipe.linguistic.train import USUAL, train
from aqaa.recipe.speech.corpus import packed
from aqaa.recipe.tokenizer_run import ask


def main() -> None:
    """Parse the command line, train and export."""
    run = ask(__doc__, "linguistic", USUAL)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    export(train(*packed(), run), run.tokenizer)


if __name__ == "__main__":
    main()
