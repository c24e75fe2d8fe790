"""Which rendering of an answer the teacher's recording is: the first that a listener hears right.

Some sentences the teacher's voice says unclearly ("There are four sides" is heard "Therefore,
sides"), and a model that learns them can be no clearer. The same voice a little slower or faster,
or with a breath between two words, often is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.progress import track

from aqaa.recipe.decoder.clips import as_answer
from aqaa.recipe.evaluate.judges import Listener, word_errors
from aqaa.recipe.speech.cache import Utterance, work_dir
from aqaa.recipe.speech.store import RATE
from aqaa.recipe.speech.voices import TEACHER

RATES = (1.0, 0.95, 0.9, 0.85, 1.05, 1.1, 1.15, 0.8)  # nearest to the voice's own first
BREATH_RATES = (1.0, 0.9)
Hear = Callable[[Utterance], str]


def renderings(text: str) -> Iterator[Utterance]:
    """The teacher's ways to say `text`: the most natural first, then with a breath in one place."""
    for rate in RATES:
        yield Utterance(text, TEACHER, rate)
    words = text.split()
    for rate in BREATH_RATES:
        for place in range(1, len(words)):
            before, after = words[:place], words[place:]
            if before[-1][-1].isalnum():  # elsewhere there is a breath already
                yield Utterance(f"{' '.join(before)}, {' '.join(after)}", TEACHER, rate)


def clearest(text: str, hear: Hear) -> Utterance:
    """The first rendering heard without a wrong word; if none is, the first with the fewest."""
    best, fewest = Utterance(text, TEACHER), len(text)
    for utterance in renderings(text):
        wrong, _ = word_errors(text, hear(utterance))
        if wrong < fewest:
            best, fewest = utterance, wrong
        if not wrong:
            break
    return best


@functools.cache
def _listener() -> Listener:
    return Listener()


def _hear(utterance: Utterance) -> str:
    return _listener().hear(as_answer(utterance), RATE)


def choose(texts: Iterable[str], hear: Hear = _hear) -> dict[str, Utterance]:
    """The rendering of each text; what is chosen once stays, in the work directory.

    Args:
        texts: sentences of the teacher's.
        hear: the words that are understood of an utterance; whisper's by default.

    Raises:
        MissingDependencyError: the voice or the listener is not installed.
    """
    file = _file()
    chosen = _kept(file)
    todo = [text for text in dict.fromkeys(texts) if text not in chosen]
    for text in track(todo, "choosing renderings", disable=not todo):
        chosen[text] = clearest(text, hear)
        _keep(chosen, file)
    return {text: chosen[text] for text in texts}


def _file() -> Path:
    return work_dir() / "renderings.json"


def _keep(chosen: dict[str, Utterance], file: Path) -> None:
    """Whole or not at all: an interruption leaves the former file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(chosen, indent=0), encoding="utf-8")
    partial.replace(file)


def _kept(file: Path) -> dict[str, Utterance]:
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {text: Utterance(*row) for text, row in kept.items()}
