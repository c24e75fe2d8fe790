"""`evaluate`: the whole table of a bundle, whole way from wav to wav."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aqaa.models.bundle import VOCODER_RATE
from aqaa.recipe.decoder.clips import trim
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import is_right
from aqaa.recipe.evaluate.conditions import NOISE_DB, far, noisy
from aqaa.recipe.evaluate.household import household_rows
from aqaa.recipe.evaluate.judges import Listener, mean_pitch, quality, word_errors
from aqaa.recipe.evaluate.pipeline import Answer, Pipeline
from aqaa.recipe.evaluate.questions import (
    Conversation,
    Turn,
    as_people_open,
    held_out_questions,
)
from aqaa.recipe.evaluate.report import Report, Row
from aqaa.recipe.evaluate.words import words_rows
from aqaa.recipe.speech.augment import telephone
from aqaa.recipe.speech.cache import Utterance, say
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import HELD_OUT, SPOKEN, TEACHER, VOICES, Wave
from aqaa.server.dialogue.prompt import Turn as PromptTurn

FAR = "right answers, held-out voices, far: 2 m, RT60 0.4 s, 15 dB"
OPENED = "right answers, held-out voices, people's openings"
Distortion = Callable[[Wave, int], Wave]


@dataclass(frozen=True)
class Judged:
    """One answer, with the ear of the judge on it."""

    turn: Turn
    voice: str
    answer: Answer
    heard: str
    first: Answer | None  # the answer before it in the conversation, which a control changes

    @property
    def right(self) -> bool:
        """Whether its sound has the words that make it right, in the other voice if asked for."""
        other = not self.turn.other_voice or (
            self.first is not None and self.answer.voice != self.first.voice
        )
        return other and is_right(self.heard, self.turn.right)


class Examiner:
    """Asks conversations in a voice and judges each answer."""

    def __init__(self, pipeline: Pipeline, listener: Listener) -> None:
        self.pipeline, self.listener = pipeline, listener

    async def hold(
        self, talks: Sequence[Conversation], voices: Sequence[str], change: Distortion | None
    ) -> list[Judged]:
        """All answers of `talks`, the voices taking turns."""
        results = []
        for number, talk in enumerate(talks):
            voice = voices[number % len(voices)]
            history: list[PromptTurn] = []
            first = None
            for turn in talk.turns:
                question = trim(hear(Utterance(turn.said, voice)))
                question = change(question, number) if change else question
                answer = await self.pipeline.ask(str(number), question, history)
                sound = answer.wave if len(answer.wave) else np.zeros(VOCODER_RATE, np.float32)
                results.append(Judged(turn, voice, answer, self.listener.hear(sound), first))
                first = answer
            await self.pipeline.engine.release(str(number))
        return results


def right_row(what: str, judged: Sequence[Judged], asked: float) -> Row:
    """The share of right answers."""
    share = float(np.mean([one.right for one in judged])) if judged else float("nan")
    return Row(what, share, ">=", asked, len(judged), percent=True)


def sound_rows(judged: Sequence[Judged], listener: Listener, scored: int) -> list[Row]:
    """WER against the answer's own text, and DNSMOS, both beside the teacher's recordings.

    The teacher says the texts that the model wrote, where they are answers that he knows.
    """
    known = set(load_domain().answers())
    errors = words = teacher_errors = teacher_words = 0
    scores: list[float] = []
    teacher_scores: list[float] = []
    spoken = [one for one in judged if one.answer.text and len(one.answer.wave)]
    heard: dict[str, str] = {}
    for one in spoken:
        wrong, count = word_errors(one.answer.text, one.heard)
        errors, words = errors + wrong, words + count
        if one.answer.text in known:
            text = one.answer.text
            if text not in heard:
                recording, rate = say(Utterance(text, TEACHER))
                heard[text] = listener.hear(recording, rate)
                if len(teacher_scores) < scored:
                    teacher_scores.append(quality(recording, rate))
                    scores.append(quality(one.answer.wave))
            wrong, count = word_errors(text, heard[text])
            teacher_errors, teacher_words = teacher_errors + wrong, teacher_words + count
    rate_ = errors / max(words, 1)
    teacher = teacher_errors / max(teacher_words, 1)
    ratio = float(np.mean(scores) / np.mean(teacher_scores)) if scores else float("nan")
    return [
        Row("WER of the answer's sound against its text", rate_, "<=", 0.12, len(spoken), True),
        Row("WER above the teacher voice's own", rate_ - teacher, "<=", 0.05, len(spoken), True),
        Row("DNSMOS of answers / of the teacher", ratio, ">=", 0.85, len(scores)),
    ]


def style_rows(judged: Sequence[Judged]) -> list[Row]:
    """What slower, faster, happy and sad change."""
    rows = []
    for style, sign in (("slow", 1.0), ("fast", -1.0)):
        changes = [
            sign * (one.answer.groups / one.first.groups - 1)
            for one in judged
            if one.turn.style == style and one.first is not None and one.first.groups
        ]
        change = float(np.mean(changes)) if changes else float("nan")
        word = "slower: longer by" if style == "slow" else "faster: shorter by"
        rows.append(Row(word, change, ">=", 0.2, len(changes), True))
    pitch = {
        mood: [
            mean_pitch(one.answer.wave)
            for one in judged
            if one.turn.style == mood and len(one.answer.wave)
        ]
        for mood in ("happy", "sad")
    }
    means = {
        mood: float(np.nanmean(values)) if values else float("nan")
        for mood, values in pitch.items()
    }
    count = min(len(values) for values in pitch.values())
    rise = means["happy"] / means["sad"] - 1
    rows.append(Row("happy above sad, mean pitch", rise, ">=", 0.15, count, True))
    return rows


async def _evaluate(
    directory: Path,
    questions: int,
    styled: int,
    people: Path | None,
    tick: Callable[[str], None],
) -> Report:
    pipeline, listener = Pipeline(directory), Listener()
    await pipeline.start()
    try:
        examiner = Examiner(pipeline, listener)
        asked_of_it = held_out_questions(load_domain())
        plain = [t for t in asked_of_it if all(turn.style == "plain" for turn in t.turns)]
        moods = [t for t in asked_of_it if any(turn.style != "plain" for turn in t.turns)]
        conditions: list[tuple[str, Sequence[str], Distortion | None, float]] = [
            ("right answers, voices trained on, new phrasings", trained_voices(), None, 0.95),
            ("right answers, held-out voices", HELD_OUT, None, 0.80),
            (f"right answers, held-out voices, noise at {NOISE_DB:.0f} dB", HELD_OUT, noisy, 0.65),
            (
                "right answers, held-out voices, telephone",
                HELD_OUT,
                lambda w, _: telephone(w),
                0.65,
            ),
        ]
        report = Report(pipeline.bundle.name)
        everything: list[Judged] = []
        for what, voices, change, asked in conditions:
            tick(what)
            judged = await examiner.hold(plain[:questions], voices, change)
            report.rows.append(right_row(what, judged, asked))
            kind = "plain" if change is None else what
            report.answers += [_as_json(kind, one) for one in judged]
            everything += judged
        # What follows is of the second edition: no part of the rows that the first was judged by.
        tick(FAR)
        judged = await examiner.hold(plain[:questions], HELD_OUT, far)
        report.rows.append(right_row(FAR, judged, 0.85))
        report.answers += [_as_json(FAR, one) for one in judged]
        tick(OPENED)
        judged = await examiner.hold(as_people_open(plain[:questions]), HELD_OUT, None)
        report.rows.append(right_row(OPENED, judged, 0.90))
        report.answers += [_as_json(OPENED, one) for one in judged]
        report.rows += await household_rows(pipeline, people, tick)
        report.rows += words_rows(pipeline, people, tick)
        tick("slower, faster, happy, sad")
        controlled = await examiner.hold(moods[:styled], [TEACHER], None)
        report.answers += [_as_json("style", one) for one in controlled]
        tick("quality")
        report.rows += sound_rows(everything, listener, scored=questions // 2)
        legal = float(np.mean([one.answer.legal for one in everything + controlled]))
        count = len(everything) + len(controlled)
        report.rows.append(Row("legal interleave, in phase, ended", legal, ">=", 1.0, count, True))
        report.rows += style_rows(controlled)
        seconds = sum(len(one.answer.wave) for one in everything) / VOCODER_RATE
        cost = sum(one.answer.cpu_seconds for one in everything) / max(seconds, 1e-9)
        report.rows.append(Row("real-time factor on one core", cost, "<=", 0.5, len(everything)))
        return report
    finally:
        await pipeline.close()


def trained_voices() -> list[str]:
    """One voice in two of those trained on, of every engine."""
    return [
        name
        for place, name in enumerate(SPOKEN)
        if place % 2 == 0 or VOICES[name].engine != "espeak"
    ]


def _as_json(condition: str, one: Judged) -> dict[str, object]:
    return {
        "condition": condition,
        "first": one.first is None,
        "words": [word for group in one.turn.right for word in group],
        "voice": one.voice,
        "intent": one.turn.intent,
        "asked": one.turn.said,
        "text": one.answer.text,
        "heard": one.heard,
        "right": one.right,
        "right_in_text": is_right(one.answer.text, one.turn.right),
        "legal": one.answer.legal,
        "groups": one.answer.groups,
    }


def evaluate(
    directory: Path,
    *,
    questions: int = 120,
    styled: int = 24,
    people: Path | None = None,
    tick: Callable[[str], None] = lambda what: None,
) -> Report:
    """The table of the bundle in `directory`.

    Args:
        directory: holds `aqaa.toml`.
        questions: conversations in each of the six conditions.
        styled: conversations with slower, faster, happy or sad in them.
        people: folder of recordings of people (`household.py` says what is in it).
        tick: told what begins.

    Raises:
        BundleError: the bundle cannot be used.
        MissingDependencyError: a judge is not installed.
    """
    return asyncio.run(_evaluate(directory, questions, styled, people, tick))
