"""The corpus that the tokenizers learn from: who says what, and the manifest of it.

Texts are half `texts.sentences`, half the domain's training phrasings. Every voice says its own
sample of them; the hundred Kokoro voices make up the half. Held-out voices say `HELD_OUT_CLIPS`
sentences each, of another seed, to measure with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection

from aqaa.recipe.decoder.corpus import question_plan, soon
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.speech.cache import Utterance, cached_path, work_dir
from aqaa.recipe.speech.store import Clip, load, pack
from aqaa.recipe.speech.texts import sentences
from aqaa.recipe.speech.voices import HELD_OUT, SPOKEN, VOICES

CLIPS = {"espeak": 60, "flite": 250, "festival": 150, "piper": 400, "kokoro": 24}  # a voice
REPEAT = {"kokoro": 2}  # the human ones are met more often than the cheap
HELD_OUT_CLIPS = 15
RATES = (0.85, 0.93, 1.0, 1.0, 1.08, 1.18)


def plan(seed: int = 0) -> list[Utterance]:
    """The training utterances, shuffled, so that any prefix is a corpus of every voice.

    The first plan is kept in the work directory (`corpus.json`), so that a later edit of the domain
    does not ask for all speech anew; delete that file to plan afresh.
    """
    file = work_dir() / "corpus.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_plan(seed)), encoding="utf-8")
    return [Utterance(*row) for row in json.loads(file.read_text(encoding="utf-8"))]


def to_speak() -> list[Utterance]:
    """All that is trained on, this plan and the decoder's questions, in a fixed random order.

    Any beginning of it is a corpus, in which what weighs more (`decoder.corpus.SOON`) is as much
    more frequent: the order is of a draw without replacement by these weights.
    """
    domain = load_domain()
    wanted = list(dict.fromkeys(plan() + question_plan(domain)))
    weights, rng = soon(domain), random.Random(9)
    places = {u: rng.random() ** (1 / weights.get(u.text, 1.0)) for u in wanted}
    return sorted(wanted, key=lambda u: -places[u])


def untold(done: Collection[Utterance]) -> list[Utterance]:
    """What the decoder is to hear and `done` lacks, the domain's questions before all commands.

    For a decoder that goes on from tokens whose clips are gone (`recipe/README.md`).
    """
    domain = load_domain()
    asked, wanted = {*domain.questions()}, {*question_plan(domain)}
    left = [u for u in to_speak() if u in wanted and u not in done]
    return sorted(left, key=lambda u: u.text not in asked)


def spoken() -> list[Utterance]:
    """What has been synthesised so far of all that is trained on."""
    return [utterance for utterance in to_speak() if cached_path(utterance).exists()]


def _plan(seed: int) -> list[Utterance]:
    texts = sentences(6000, seed) + list(load_domain().questions())
    picked: list[Utterance] = []
    for name in SPOKEN:
        rng = random.Random(f"{seed} {name}")
        count = CLIPS[VOICES[name].engine]
        picked += [Utterance(t, name, rng.choice(RATES)) for t in rng.sample(texts, count)]
    random.Random(seed).shuffle(picked)
    return picked


def held_out_plan(seed: int = 77_000) -> list[Utterance]:
    """What the held-out voices say, to measure the tokenizers on; no text of the domain."""
    texts = sentences(HELD_OUT_CLIPS * len(HELD_OUT), seed)
    voices = [name for name in HELD_OUT for _ in range(HELD_OUT_CLIPS)]
    return [Utterance(text, voice) for text, voice in zip(texts, voices, strict=True)]


def packed() -> tuple[list[Clip], list[Clip]]:
    """The training clips and the held-out ones, packed from what has been spoken so far.

    A packed corpus is used again; delete `clips.npy` in the work directory to pack anew.
    """
    train, judge = work_dir() / "clips", work_dir() / "judge"
    if not judge.with_suffix(".npy").exists():
        pack(held_out_plan(), judge)
    if not train.with_suffix(".npy").exists():
        pack(spoken(), train)
    clips = [c for c in load(train) for _ in range(REPEAT.get(VOICES[c.voice].engine, 1))]
    return clips, load(judge)
