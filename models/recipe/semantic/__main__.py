"""`python -m aqaa.models.recipe.semantic`: train on the corpus, or go on; then export."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from aqaa.models.bundle import nano_path
from aqaa.models.recipe.semantic.export import export
from aqaa.models.recipe.semantic.train import Schedule, train
from aqaa.models.recipe.speech.cache import work_dir
from aqaa.models.recipe.speech.corpus import packed


def main() -> None:
    """Parse the command line, train and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=Schedule.steps)
    parser.add_argument("--codes-from", type=int, default=Schedule.codes_from)
    parser.add_argument("--out", type=Path, default=nano_path() / "Step-Audio-Tokenizer")
    parser.add_argument("--run", default="semantic", help="folder of the checkpoint")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    clips, judge = packed()
    schedule = Schedule(arguments.steps, arguments.codes_from)
    model = train(clips, judge, work_dir() / arguments.run, schedule)
    export(model.encoder, arguments.out / "speech_tokenizer_v1.onnx")


if __name__ == "__main__":
    main()
