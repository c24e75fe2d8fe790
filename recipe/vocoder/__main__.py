"""`python -m aqaa.recipe.vocoder`: train nano's vocoder and write it into the bundle.

Stages, each resumable: hift (mel to wave), flow (tokens to mel), drill (the flow goes on with what
is misheard), tune (the generator learns the flow's own mels), pack (files and voices), evaluate.
"""

from __future__ import annotations

import argparse
import logging

import torch

from aqaa.recipe.speech.cache import work_dir
from aqaa.recipe.vocoder.stages import STAGES, Recipe


def main() -> None:
    """Parse the command line and run the stages that it names, in their order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", choices=[[], *STAGES], help="default: all, in order")
    parser.add_argument(
        "--from-bundle",
        action="store_true",
        help="begin flow, drill and tune with the bundle's weights",
    )
    arguments = parser.parse_args()
    chosen = arguments.stages or STAGES
    folder = work_dir() / "vocoder"
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)  # two one-thread jobs beat one two-thread job
    recipe = Recipe(folder, arguments.from_bundle)
    for name in STAGES:
        if name in chosen:
            STAGES[name](recipe)


if __name__ == "__main__":
    main()
