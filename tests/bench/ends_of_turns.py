"""The frontier of false ends against delay: plain silence, Smart Turn, and the bundle's own head.

Each clip is heard once, as the server hears it; then every policy is tried on a simulated clock, so
the machine's load changes nothing. Two kinds of clips:

- orders by people, with the pauses that they make (`AQAA_PEOPLE` names the folder of recordings,
  which is no part of this repository);
- held-out questions in a held-out voice, flite's rms, each with one pause of 150 to 600 ms at the
  end of a word.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import torch
from bench_tables import markdown
from frontier import SHORT_SECONDS, Point, draw
from scripted import GroupTokenizer
from turn_taking import Heard, Policy, Sound, two_waits, under_judge, under_silence

from aqaa.models.bundle import TOKENIZER_RATE, Bundle, load_bundle, nano_path
from aqaa.recipe.decoder.clips import trim
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.evaluate.questions import held_out_questions
from aqaa.recipe.speech.augment import add_noise
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear
from aqaa.recipe.turn.moments import quiet_place, word_ends
from aqaa.server.audio.files import read_audio
from aqaa.server.hearing.end_of_turn import Eagerness, Judge, wait_of
from aqaa.server.hearing.smart_turn import SmartTurn
from aqaa.server.hearing.tokenising import CPU_BATCH, Tokenising
from aqaa.server.hearing.turn_head import HeadJudge, TurnHead
from aqaa.server.hearing.vad import VadModel
from aqaa.tokenizers.dual import DualTokenizer

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "ends_of_turns.svg"
TITLE = "Ends of turns: cut off against waited for (nano)"
LEGEND = (
    "Delay: ms from the last sample of speech to the end of the turn, p50 / p95, of turns that "
    "were not cut. Cut: turns that ended too early. Taken back: cut turns that are open again, for "
    "their speaker goes on within a second. `p >= x`: 200 ms of silence from this probability on, "
    "600 below it. `semantic_vad`: as it is."
)
QUESTIONS = 60
VOICE = "rms"
PAUSE = (0.15, 0.6)  # seconds
NOISE_DB = 45.0  # below the speech
LEAD_SECONDS = 0.3
SILENCES = (200, 250, 300, 350, 400, 500, 600)  # ms
LEAST = (0.99, 0.97, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1)  # probabilities
EAGERNESS: tuple[Eagerness, ...] = ("low", "medium", "high")


def main() -> str:
    """Markdown: a table for each kind of clips, and `PICTURE` of them. About three minutes of one
    core."""
    torch.set_num_threads(1)
    judges = judges_of(load_bundle(nano_path()))
    found = {what: points(clips, judges) for what, clips in kinds_of_clips()}
    draw(found, PICTURE)
    return f"{LEGEND}\n\n![False ends against delay]({PICTURE.name})\n\n" + "\n\n".join(
        f"**{what}**, n = {len(row[0].heard)}\n\n{table(row)}" for what, row in found.items()
    )


def judges_of(bundle: Bundle) -> list[tuple[Judge, Tokenising]]:
    """The judges that are there, and what they hear ids from."""
    judges: list[tuple[Judge, Tokenising]] = []
    if (smart := SmartTurn.find()) is not None:
        judges.append((smart, Tokenising(GroupTokenizer())))  # it does not listen to ids
    if bundle.turn is not None:
        head = HeadJudge(TurnHead.load(bundle.turn.path), bundle.turn, bundle.tokens.audio_offset)
        judges.append((head, Tokenising(DualTokenizer.load(bundle), CPU_BATCH)))
    return judges


def kinds_of_clips() -> list[tuple[str, list[Sound]]]:
    """What is heard, by its name; without `AQAA_PEOPLE` no people."""
    kinds = []
    if folder := os.environ.get("AQAA_PEOPLE"):
        files = sorted((Path(folder) / "coffee").glob("*.flac"))
        kinds.append(("Orders by people", [read_audio(file, TOKENIZER_RATE) for file in files]))
    kinds.append(("Held-out questions with a pause", paused_questions()))
    return kinds


def paused_questions() -> list[Sound]:
    """Held-out questions with a pause at the end of a word."""
    rng = np.random.default_rng(16)
    talks = held_out_questions(load_domain())
    said = list(dict.fromkeys(talk.turns[0].said for talk in talks))[:QUESTIONS]
    return [paused(trim(hear(Utterance(text, VOICE)), 0.0), text, rng) for text in said]


def paused(speech: Sound, text: str, rng: np.random.Generator) -> Sound:
    """`speech`, which says `text`, with a pause at the end of one of its words."""
    place = quiet_place(speech, float(rng.choice(word_ends(text))))
    pause = np.zeros(round(rng.uniform(*PAUSE) * TOKENIZER_RATE), np.float32)
    clip = np.concatenate((speech[:place], pause, speech[place:]))
    lead = round(LEAD_SECONDS * TOKENIZER_RATE)
    return add_noise(np.pad(clip, lead).astype(np.float32), NOISE_DB, rng)


def points(clips: Sequence[Sound], judges: Sequence[tuple[Judge, Tokenising]]) -> list[Point]:
    """One for each policy."""
    vad, found = VadModel.load(), []
    for judge, tokenising in judges:
        heard = [Heard.of(clip, tokenising, vad.stream(), judge) for clip in clips]
        found += silences(heard) if not found else []
        policies = {f"p >= {least:g}": two_waits(least) for least in LEAST}
        whole = {eagerness: as_it_is(judge, eagerness) for eagerness in EAGERNESS}
        for by, tried in ((judge.name, policies), (f"semantic_vad, {judge.name}", whole)):
            for name, policy in tried.items():
                outcomes = [under_judge(clip, judge, policy) for clip in heard]
                found.append(Point(by, name, heard, outcomes))
    return found


def silences(heard: Sequence[Heard]) -> list[Point]:
    """Of plain silences."""
    return [
        Point("silence", f"{ms} ms", heard, [under_silence(clip, ms) for clip in heard])
        for ms in SILENCES
    ]


def as_it_is(judge: Judge, eagerness: Eagerness) -> Policy:
    """What `semantic_vad` does."""
    return lambda chance: wait_of(chance, judge.thresholds(eagerness), eagerness)


def table(found: Sequence[Point]) -> str:
    """One row a policy."""
    head = ("ended by", "delay", "cut", f"cut < {SHORT_SECONDS} s", "taken back")
    return markdown(head, [point.cells() for point in found])
