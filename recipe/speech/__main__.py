"""`python -m aqaa.recipe.speech`: speak the corpus, the cheapest voices first. Resumable.

The dear ones, the human, come in a random order after them, so that a run that is stopped has a
fair sample of what there is to say.
"""

from __future__ import annotations

import argparse
import logging

from aqaa.recipe.speech.cache import say_all
from aqaa.recipe.speech.corpus import held_out_plan, to_speak
from aqaa.recipe.speech.voices import VOICES

CHEAP = 0.1  # cpu-seconds for a second of speech


def main() -> None:
    """Parse the command line and fill the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2, help="synthesis processes")
    parser.add_argument("--engine", help="only the voices of this engine")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    utterances = [
        u
        for u in held_out_plan() + to_speak()
        if arguments.engine in (None, VOICES[u.voice].engine)
    ]
    utterances.sort(key=lambda u: VOICES[u.voice].cost > CHEAP)  # stable: shuffled within each half
    seconds = say_all(utterances, arguments.processes)
    logging.info("%.2f hours of new speech", seconds / 3600)


if __name__ == "__main__":
    main()
