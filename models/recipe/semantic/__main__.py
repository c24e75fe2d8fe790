"""`python -m aqaa.models.recipe.semantic`: train on the corpus, or go on; then export."""

from __future__ import annotations

import logging

import torch

from aqaa.models.recipe.semantic.export import export
from aqaa.models.recipe.semantic.train import USUAL, train
from aqaa.models.recipe.speech.corpus import packed
from aqaa.models.recipe.tokenizer_run import ask


def main() -> None:
    """Parse the command line, train and export."""
    run = ask(__doc__, "semantic", USUAL)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    model = train(*packed(), run)
    export(model.encoder, run.tokenizer / "speech_tokenizer_v1.onnx")


if __name__ == "__main__":
    main()
