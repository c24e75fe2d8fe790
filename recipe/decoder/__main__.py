"""`python -m aqaa.recipe.decoder {tokens,train,close}`: hear the corpus; train; close.

`close` goes on from the bundle's weights for a while at lower rates, and keeps the middle between
what it began with and what it came to.
"""

from __future__ import annotations

import argparse
import logging
import shutil

import torch

from aqaa.models.bundle import nano_path
from aqaa.recipe.decoder.model import NANO
from aqaa.recipe.decoder.prepare import codebooks, folder, pieces_path, prepare
from aqaa.recipe.decoder.sampler import CLOSING_MIX, Mix
from aqaa.recipe.decoder.train import CLOSING, Training, train


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
    bundled = nano_path() / "decoder"
    if arguments.stage == "train":
        settings, mix, name = Training(minutes=arguments.minutes), Mix(), "decoder"
        begin = bundled if arguments.from_bundle else None
    else:
        settings, mix, name = CLOSING, CLOSING_MIX, "closed"
        begin = folder() / "before_closing"
        if not begin.exists():  # an interrupted closing has begun with these already
            shutil.copytree(bundled, begin)
    train(
        NANO,
        settings,
        mix,
        folder(),
        pieces_path(),
        codebooks(),
        bundled,
        begin=begin,
        name=name,
    )


if __name__ == "__main__":
    main()
