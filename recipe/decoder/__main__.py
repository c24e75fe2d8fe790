"""`python -m aqaa.recipe.decoder {tokens,train,close,prefer}`: hear the corpus, train, and after.

`close` goes on from the bundle's weights for a while at lower rates, and keeps the middle between
what it began with and what it came to. `prefer` draws pairs from the decoder's own samples, learns
from them, and keeps the merge of before and after that answers best in training.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from aqaa.models.bundle import nano_path
from aqaa.recipe.decoder.clips import load_material
from aqaa.recipe.decoder.layout import Layout
from aqaa.recipe.decoder.model import NANO, load_decoder, save_decoder
from aqaa.recipe.decoder.preference import draw_pairs, merge, prefer
from aqaa.recipe.decoder.prepare import (
    TAKES,
    codebooks,
    folder,
    former,
    learn_more,
    pieces_path,
    prepare,
)
from aqaa.recipe.decoder.sampler import CLOSING_MIX, FURTHER_MIX, Mix, Sampler
from aqaa.recipe.decoder.text import Pieces
from aqaa.recipe.decoder.train import (
    CLOSING,
    DEVICE_BATCH,
    FURTHER,
    FURTHER_ON_DEVICE,
    Training,
    train,
)
from aqaa.recipe.domain.load import load_domain

PROMPTS, STEPS, JUDGED = 3500, 120, 400  # of the preference
JUDGED_SENTENCES = 0.1  # of all that are asked aloud; of these no pairs are drawn
# What a server is asked aloud, with tools more often than not; nothing whose words are given.
PREFERENCE_MIX = replace(
    FURTHER_MIX,
    brief=1.0,
    written=0.0,
    brief_written=0.0,
    command_written=0.0,
    recital=0.0,
    reply=0.0,
)


def main() -> None:
    """Parse the command line and run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["tokens", "train", "close", "prefer"])
    parser.add_argument("--processes", type=int, default=2, help="that tokenise")
    parser.add_argument(
        "--minutes", type=float, default=Training.minutes, help="of training, earlier runs included"
    )
    parser.add_argument(
        "--from-bundle",
        action="store_true",
        help="begin with the bundle's weights, as they were before its pieces were replaced",
    )
    parser.add_argument("--takes", type=int, default=TAKES, help="of every clip")
    parser.add_argument("--answers", type=int, help="of tools, so many; all, and chosen by ear")
    parser.add_argument(
        "--device", default="cpu", help="that trains; on another (cuda) minutes are of the clock"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.stage == "tokens":
        prepare(arguments.processes, arguments.takes, arguments.answers)
        return
    torch.set_num_threads(1)  # two one-thread jobs beat one two-thread job
    bundled, begin = nano_path() / "decoder", None
    refresh: Callable[[], None] | None = None
    if arguments.stage == "prefer":
        prefer_words(bundled)
        return
    if arguments.stage == "train":
        settings, mix, name = Training(minutes=arguments.minutes), Mix(), "decoder"
        if arguments.from_bundle:
            further = FURTHER if arguments.device == "cpu" else FURTHER_ON_DEVICE
            settings, mix = replace(further, minutes=arguments.minutes), FURTHER_MIX
            begin, refresh = kept_as("before_further"), learn_more
            if former().exists():  # that cannot call: a part of it kept would hide all calls
                begin, settings = former(), replace(settings, kept=0.0)
    else:
        settings, mix, name = CLOSING, CLOSING_MIX, "closed"
        begin = kept_as("before_closing")
    if arguments.device != "cpu":
        settings = replace(settings, batch_tokens=DEVICE_BATCH)
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
        refresh=refresh,
        device=torch.device(arguments.device),
    )


def kept_as(name: str) -> Path:
    """The bundle's decoder as it was when a stage began, which a resumed one begins with too."""
    kept = folder() / name
    if not kept.exists():
        shutil.copytree(nano_path() / "decoder", kept)
    return kept


def prefer_words(bundled: Path) -> None:
    """Pairs of the decoder in `bundled`, preference, and the best merge in its place."""
    layout = Layout(Pieces.load(pieces_path()))
    tokens = layout.tokens
    before = kept_as("before_preference")
    model = load_decoder(before)
    heard, judged = load_material(folder()).apart(JUDGED_SENTENCES, seed=21)
    sampler = Sampler(load_domain(), heard, layout, PREFERENCE_MIX, seed=21)
    torch.manual_seed(21)
    pairs = draw_pairs(model, sampler, PROMPTS)
    logging.info("%d pairs of %d prompts", len(pairs), PROMPTS)
    after = prefer(model, pairs, tokens.audio_offset, STEPS, folder() / "preferred.pt")
    judges = Sampler(load_domain(), judged, layout, PREFERENCE_MIX, seed=22)
    talks = [judges.talk() for _ in range(JUDGED)]
    merged = merge(model, after, talks, tokens.audio_offset)
    save_decoder(merged, bundled, bos=tokens.bos, eos=tokens.eot, pad=tokens.pad)


if __name__ == "__main__":
    main()
