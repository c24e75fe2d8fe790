"""Commands to the household and to the coffee machine: is what was said called, and nothing else?

Three sets: the evaluation's own commands, spoken by the held-out voices; what no tool is for; and
recordings of people, from a folder that is not part of this repository (`coffee.json` beside the
clips: rows of `file` and `slots`; `commands.tsv`: rows of `file` and what must be called).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import yaml

from aqaa.models.bundle import TOKENIZER_RATE
from aqaa.models.errors import AudioError
from aqaa.recipe.decoder.text import CALL_MARKERS, Pieces
from aqaa.recipe.domain.load import load_domain
from aqaa.recipe.domain.numbers import is_right, normalise
from aqaa.recipe.domain.tools import COFFEE, TOOLS, Call, Tool, shown
from aqaa.recipe.evaluate.conditions import BUSY_DB, in_kitchen_or_cafe
from aqaa.recipe.evaluate.pipeline import Pipeline
from aqaa.recipe.evaluate.questions import HELD_OUT as PHRASINGS
from aqaa.recipe.evaluate.questions import PEOPLE, held_out_questions
from aqaa.recipe.evaluate.report import Row, half_width
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import HELD_OUT, Wave
from aqaa.server.dialogue.prompt import SystemTurn, Turn, UserTurn
from aqaa.server.engine.contract import SamplingParams

COMMANDS = PHRASINGS.with_name("commands.yaml")
LONGEST_CALL = 100  # ids
OTHERS = 190  # questions that no tool is for, beside the set's own
REFUSAL = (("sorry",), ("small",))
PEOPLE_SAID = {  # what the recordings of `commands.tsv` ask for, by their transcripts
    "add apples to my Shopping List": Call("add_to_list", (("item", "apples"),)),
    "cancel timer": Call("cancel_timer"),
    "lock the Front Door": Call("lock_door", (("door", "front door"),)),
    "set a timer for 5 minutes": Call("set_timer", (("minutes", 5),)),
    "turn off lights in the Office": Call("set_light", (("room", "office"), ("on", False))),
    "turn on the living room lamp": Call("set_light", (("room", "living room"), ("on", True))),
    "what time is it": Call("get_time"),
    "what's the weather": Call("get_weather"),
}


@dataclass(frozen=True)
class Spoken:
    """A clip (float32, 16 kHz), what is declared, and what must be called; None: nothing."""

    name: str
    wave: Wave
    tools: tuple[Tool, ...]
    call: Call | None


@dataclass(frozen=True)
class Heard:
    """What came of a clip: the call's text, "" where there was none, and the answer's words."""

    spoken: Spoken
    called: str
    said: str = ""

    @property
    def right(self) -> bool:
        """Exactly what must be called was."""
        if self.spoken.call is None:
            return not self.called
        return same_call(self.spoken.call, self.called)


def commands() -> Iterator[Spoken]:
    """The evaluation's commands with every tool declared; the held-out voices take turns."""
    for number, row in enumerate(yaml.safe_load(COMMANDS.read_text(encoding="utf-8"))):
        wave = hear(Utterance(row["said"], HELD_OUT[number % len(HELD_OUT)]))
        call = Call(row["call"], tuple(row["with"].items()))
        yield Spoken(row["said"], wave, tuple(TOOLS.values()), call)


def held_out_texts() -> set[str]:
    """All that the evaluation asks and commands, normalised: nothing may be trained on it."""
    asked = [turn.said for talk in held_out_questions(load_domain()) for turn in talk.turns]
    commanded = [row["said"] for row in yaml.safe_load(COMMANDS.read_text(encoding="utf-8"))]
    return {normalise(text) for text in asked + commanded}


def outside() -> Iterator[Spoken]:
    """What no tool is for, with every tool declared."""
    said: list[str] = yaml.safe_load(PEOPLE.read_text(encoding="utf-8"))["outside"]
    for number, text in enumerate(said):
        wave = hear(Utterance(text, HELD_OUT[number % len(HELD_OUT)]))
        yield Spoken(text, wave, tuple(TOOLS.values()), None)


def people_coffee(folder: Path) -> Iterator[Spoken]:
    """Recorded orders, with the coffee machine declared alone, as in the benchmark."""
    for row in json.loads((folder / "coffee.json").read_text(encoding="utf-8")):
        names = [name for name, _ in COFFEE.parameters if name in row["slots"]]
        call = Call(COFFEE.name, tuple((name, row["slots"][name]) for name in names))
        yield Spoken(row["file"], _read(folder / "coffee" / row["file"]), (COFFEE,), call)


def people_commands(folder: Path) -> Iterator[Spoken]:
    """Recorded household commands, with every tool declared."""
    with (folder / "commands.tsv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            wave = _read(folder / "commands" / row["file"])
            call = PEOPLE_SAID[row["transcript"]]
            yield Spoken(row["transcript"], wave, tuple(TOOLS.values()), call)


def same_call(wanted: Call, called: str) -> bool:
    """Whether the JSON `called` is `wanted`: the tool, and exactly its arguments and values."""
    try:
        body = json.loads(called)
        name, given = body["name"], dict(body["arguments"])
    except (ValueError, KeyError, TypeError):
        return False
    arguments = dict(wanted.arguments)
    if name != wanted.name or given.keys() != arguments.keys():
        return False
    return all(_same(arguments[key], given[key]) for key in arguments)


def _same(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(given, bool):
        return wanted is given
    return bool(normalise(str(wanted)) == normalise(str(given)))


def between(ids: Sequence[int], begin: int, end: int) -> list[int] | None:
    """The ids of the first call in an answer; None if there is none, or if it never ends."""
    if begin not in ids:
        return None
    inner = list(ids[list(ids).index(begin) + 1 :])
    return inner[: inner.index(end)] if end in inner else None


async def listen(
    pipeline: Pipeline,
    clips: Collection[Spoken],
    markers: tuple[int, int],
    change: Callable[[Wave, int], Wave] | None = None,
) -> list[Heard]:
    """What the decoder calls for each clip, `change`d first, in a session of its own.

    `markers` are the ids of the call's beginning and end.
    """
    # The pattern is that of a spoken answer; whether there is one is the question here.
    params = replace(SamplingParams.of(pipeline.bundle, seed=0), pattern=None)
    params = replace(params, max_tokens=LONGEST_CALL)
    found = []
    for number, clip in enumerate(clips):
        wave = change(clip.wave, number) if change else clip.wave
        turns: list[Turn] = [SystemTurn(shown(clip.tools)), UserTurn((pipeline.hear(wave),))]
        prompt = pipeline.prompts.finished(turns)
        ids = [token async for token in pipeline.engine.generate(clip.name, prompt, params)]
        await pipeline.engine.release(clip.name)
        inner = between(ids, *markers)
        words = [token for token in ids if token < pipeline.bundle.tokens.audio_offset]
        called = "" if inner is None else pipeline.text.decode(inner)
        found.append(Heard(clip, called, pipeline.text.decode(words)))
    return found


def call_markers(pipeline: Pipeline) -> tuple[int, int] | None:
    """The ids of a call's beginning and end; None where the decoder has no such pieces."""
    decoder = pipeline.bundle.decoder
    pieces = Pieces.load(decoder.path / decoder.text_tokenizer)
    begin, end = (pieces.control(marker) for marker in CALL_MARKERS)
    return None if pieces.model.is_unknown(begin) else (begin, end)


def others(count: int) -> Iterator[Spoken]:
    """The first `count` held-out questions with every tool declared: none is to be called.

    Those that are refused without tools are left out: some of them are commands.
    """
    turns = [talk.turns[0] for talk in held_out_questions(load_domain())]
    asked = dict.fromkeys(turn.said for turn in turns if turn.intent != "refuse")
    for number, text in enumerate(list(asked)[:count]):
        wave = hear(Utterance(text, HELD_OUT[number % len(HELD_OUT)]))
        yield Spoken(text, wave, tuple(TOOLS.values()), None)


async def household_rows(
    pipeline: Pipeline, people: Path | None, tick: Callable[[str], None]
) -> list[Row]:
    """The table's rows about tools; none for a decoder that was never taught to call.

    `people` is the folder of recordings; without it their rows are left out.
    """
    markers = call_markers(pipeline)
    if markers is None:
        return []
    tick("commands")
    obeyed = await listen(pipeline, list(commands()), markers)
    rows = [_row("commands, held-out voices: tool and all arguments right", obeyed, 0.80)]
    tick("what no tool is for")
    strange = await listen(pipeline, list(outside()), markers)
    refused = float(np.mean([not one.called and is_right(one.said, REFUSAL) for one in strange]))
    rows.append(
        Row("what it cannot do: an honest refusal", refused, ">=", 0.90, len(strange), True)
    )
    asked = strange + await listen(pipeline, list(others(OTHERS)), markers)
    called = float(np.mean([bool(one.called) for one in asked]))
    rows.append(Row("a tool called that was not asked for", called, "<=", 0.01, len(asked), True))
    if people is not None:
        tick("recordings of people")
        orders = list(people_coffee(people))
        quiet = await listen(pipeline, orders, markers)
        rows.append(_row("people's orders of coffee: every slot right", quiet, 0.85))
        noisy = await listen(pipeline, orders, markers, in_kitchen_or_cafe)
        rows.append(_row(f"the same, {BUSY_DB:.0f} dB of kitchen and cafe", noisy, 0.75))
        asked = await listen(pipeline, list(people_commands(people)), markers)
        rows.append(_row("people's household commands", asked, 0.80))
    return rows


def _row(what: str, heard: Sequence[Heard], asked: float) -> Row:
    return Row(what, share_right(heard)[0], ">=", asked, len(heard), True)


def share_right(heard: Sequence[Heard]) -> tuple[float, float]:
    """The share that is right, and half the width of its 95 % confidence interval (Wilson)."""
    share = float(np.mean([one.right for one in heard]))
    return share, half_width(share, len(heard))


def _read(path: Path) -> Wave:
    wave, rate = soundfile.read(path, dtype="float32")
    if rate != TOKENIZER_RATE or wave.ndim != 1:
        raise AudioError(f"{path} is not mono at {TOKENIZER_RATE} Hz: convert it")
    return np.asarray(wave, np.float32)
