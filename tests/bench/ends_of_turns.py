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
from scripted import GroupTokenizer
from turn_taking import Heard, Outcome, Policy, Sound, two_waits, under_judge, under_silence

from aqaa.clients.load_test import percentile
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

TITLE = "Ends of turns: cut off against waited for (nano)"
LEGEND = (
    "Delay: ms from the last sample of speech to the end of the turn, p50 / p95, of turns that "
    "were not cut. Cut: turns that ended too early. Taken back: cut turns that are open again, for "
    "their speaker goes on within a second. `p >= x`: 200 ms of silence from this probability on, "
    "600 below it. low, medium, high: `semantic_vad` as it is."
)
QUESTIONS = 60
VOICE = "rms"
PAUSE = (0.15, 0.6)  # seconds
NOISE_DB = 45.0  # below the speech
LEAD_SECONDS = 0.3
SHORT_SECONDS = 2.5
SILENCES = (200, 250, 300, 350, 400, 500, 600)  # ms
LEAST = (0.99, 0.97, 0.9, 0.8, 0.7, 0.5, 0.3, 0.1)  # probabilities
EAGERNESS: tuple[Eagerness, ...] = ("low", "medium", "high")


def main() -> str:
    """Markdown: a table for each kind of clips. Takes about three minutes of one core."""
    torch.set_num_threads(1)
    judges = judges_of(load_bundle(nano_path()))
    kinds = kinds_of_clips()
    return f"{LEGEND}\n\n" + "\n\n".join(
        f"**{what}**, n = {len(clips)}\n\n{table(clips, judges)}" for what, clips in kinds
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


def table(clips: Sequence[Sound], judges: Sequence[tuple[Judge, Tokenising]]) -> str:
    """One row a policy."""
    vad, rows = VadModel.load(), []
    for judge, tokenising in judges:
        heard = [Heard.of(clip, tokenising, vad.stream(), judge) for clip in clips]
        rows += silences(heard) if not rows else []
        policies = {f"p >= {least:g}": two_waits(least) for least in LEAST}
        policies |= {eagerness: as_it_is(judge, eagerness) for eagerness in EAGERNESS}
        for name, policy in policies.items():
            outcomes = [under_judge(clip, judge, policy) for clip in heard]
            rows.append([f"{judge.name}, {name}", *measured(heard, outcomes)])
    return markdown(("ended by", "delay", "cut", f"cut < {SHORT_SECONDS} s", "taken back"), rows)


def silences(heard: Sequence[Heard]) -> list[list[str]]:
    """The rows of plain silences."""
    return [
        [f"silence of {ms} ms", *measured(heard, [under_silence(clip, ms) for clip in heard])]
        for ms in SILENCES
    ]


def as_it_is(judge: Judge, eagerness: Eagerness) -> Policy:
    """What `semantic_vad` does."""
    return lambda chance: wait_of(chance, judge.thresholds(eagerness), eagerness)


def measured(heard: Sequence[Heard], outcomes: Sequence[Outcome]) -> list[str]:
    """The cells of a row."""
    delays = [one.delay_ms for one in outcomes if one.delay_ms is not None]
    cut = [one for one in outcomes if one.delay_ms is None]
    short = [
        one.delay_ms is None
        for one, clip in zip(outcomes, heard, strict=True)
        if clip.spoken_seconds < SHORT_SECONDS
    ]
    return [
        " / ".join(f"{percentile(delays, q):.0f}" for q in (50, 95)) if delays else "-",
        share(len(cut), len(outcomes)),
        share(sum(short), len(short)),
        share(sum(one.taken_back for one in cut), len(cut)),
    ]


def share(count: int, of: int) -> str:
    """In per cent, and of how many."""
    return f"{100 * count / of:.1f} % of {of}" if of else "-"
