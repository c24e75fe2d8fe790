"""`python -m aqaa.recipe.speech`: speak the corpus, the cheapest voices first. Resumable.

The dear ones, the human, come after them. What weighs most comes soonest of either kind, so that
`--cheap N --human M` make a corpus: the whole plan is some fifteen hours of a core.
"""

from __future__ import annotations

import argparse
import logging

from aqaa.recipe.decoder.clips import tokenised
from aqaa.recipe.speech.cache import Utterance, say_all, work_dir
from aqaa.recipe.speech.corpus import held_out_plan, to_speak, untold
from aqaa.recipe.speech.voices import VOICES


def main() -> None:
    """Parse the command line and fill the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="synthesis processes")
    parser.add_argument(
        "--cheap", type=int, help="only so many clips of the voices that cost little"
    )
    parser.add_argument("--human", type=int, help="only so many of the human ones")
    parser.add_argument(
        "--decoder", action="store_true", help="only what the decoder has no tokens of yet"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    dear: list[Utterance] = []
    cheap: list[Utterance] = []
    for utterance in untold(tokenised(work_dir() / "decoder")) if arguments.decoder else to_speak():
        (dear if VOICES[utterance.voice].human else cheap).append(utterance)
    utterances = [*held_out_plan(), *cheap[: arguments.cheap], *dear[: arguments.human]]
    seconds = say_all(utterances, arguments.processes)
    logging.info("%.2f hours of new speech", seconds / 3600)


if __name__ == "__main__":
    main()
