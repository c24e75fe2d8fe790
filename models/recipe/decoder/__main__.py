"""`python -m aqaa.models.recipe.decoder {tokens,train}`: hear the corpus; train, or go on."""

from __future__ import annotations

import argparse
import logging

import torch

from aqaa.models.bundle import nano_path
from aqaa.models.recipe.decoder.model import DecoderConfig
from aqaa.models.recipe.decoder.prepare import codebooks, folder, pieces_path, prepare
from aqaa.models.recipe.decoder.sampler import Mix
from aqaa.models.recipe.decoder.text import VOCABULARY
from aqaa.models.recipe.decoder.train import Training, train


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["tokens", "train"])
    parser.add_argument("--processes", type=int, default=2, help="that tokenise")
    parser.add_argument(
        "--minutes", type=float, default=Training.minutes, help="of training, earlier runs included"
    )
    parser.add_argument(
        "--from-bundle", action="store_true", help="begin with the bundle's weights"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.stage == "tokens":
        prepare(arguments.processes)
        return
    torch.set_num_threads(1)  # two one-thread jobs beat one two-thread job
    train(
        DecoderConfig(VOCABULARY),
        Training(minutes=arguments.minutes),
        Mix(),
        folder(),
        pieces_path(),
        codebooks(),
        nano_path() / "decoder",
        begin=nano_path() / "decoder" if arguments.from_bundle else None,
    )


if __name__ == "__main__":
    main()
