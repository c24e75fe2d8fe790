"""`python -m aqaa.models.recipe.decoder {tokens,train,close}`: hear the corpus; train; close.

`close` goes on from the bundle's weights for a while at lower rates.
"""

from __future__ import annotations

import argparse
import logging

import torch

from aqaa.models.bundle import nano_path
from aqaa.models.recipe.decoder.model import DecoderConfig
from aqaa.models.recipe.decoder.prepare import codebooks, folder, pieces_path, prepare
from aqaa.models.recipe.decoder.sampler import CLOSING_MIX, Mix
from aqaa.models.recipe.decoder.text import VOCABULARY
from aqaa.models.recipe.decoder.train import CLOSING, Training, train


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["tokens", "train", "close"])
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
    closing = arguments.stage == "close"
    train(
        DecoderConfig(VOCABULARY),
        CLOSING if closing else Training(minutes=arguments.minutes),
        CLOSING_MIX if closing else Mix(),
        folder(),
        pieces_path(),
        codebooks(),
        nano_path() / "decoder",
        begin=nano_path() / "decoder" if arguments.from_bundle or closing else None,
        name="closed" if closing else "decoder",
    )


if __name__ == "__main__":
    main()
