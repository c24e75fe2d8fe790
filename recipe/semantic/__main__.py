"""`python -m aqaa.recipe.semantic`: train on the corpus, or go on; then export."""

from __future__ import annotations

import logging

import torch

from aqaa.recipe.semantic.export import export
from aqaa.recipe.semantic.train import USUAL, train
from aqaa.recipe.speech.corpus import packed
from aqaa.recipe.tokenizer_run import ask


def main() -> None:
    """Parse the command line, train and export."""
    run = ask(__doc__, "semantic", USUAL)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    model = train(*packed(), run)
    export(model.encoder, run.tokenizer / "speech_tokenizer_v1.onnx")


if __name__ == "__main__":
    main()
