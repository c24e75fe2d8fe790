"""What the vocoder costs and how its joins measure up: run by `make bench`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from seams import Report, measure, measure_published, whole_sounds
from tiny_vocoder import PUBLISHED, random_vocoder, tokens

from aqaa.models.bundle import VocoderConfig, load_bundle, nano_path
from aqaa.models.groups import GROUP_SECONDS, GROUP_TOKENS
from aqaa.vocoder.noise import KeyedNoise
from aqaa.vocoder.state import Chunk, due, feed
from aqaa.vocoder.vocoder import Vocoder

TITLE = "Vocoder"
ANSWERS = nano_path() / "examples" / "answers.json"
PUBLISHED_HOP = 83  # tokens: two seconds, the least that CosyVoice-1 streams (SPEC 7.2)
FIXTURE_HOP = 40  # tokens: what the reference's fixture streams


def main() -> str:
    """Markdown tables."""
    bundle = load_bundle(nano_path())
    nano = Vocoder.load(bundle.vocoder, bundle.voices)
    published = random_vocoder(PUBLISHED, VocoderConfig(path=Path()), "any")
    return "\n\n".join(
        [
            _speed({"nano": (nano, 5), "published dimensions, random weights": (published, 1)}),
            _sessions(nano),
            _seams(nano),
        ]
    )


def _chunk(vocoder: Vocoder, number: int) -> Chunk:
    """Chunk `number` of a stream in the first voice, counted from 0."""
    synthesiser = vocoder.synthesiser
    prompt = synthesiser.prompt(next(iter(vocoder.voices.values())))
    state = synthesiser.start(prompt, KeyedNoise(), 1.0)
    while True:
        while not (chunk := due(state, synthesiser.config)):
            state = feed(state, tokens(1, seed=state.groups))
        if state.chunk >= number:
            return chunk
        ((state, _),) = synthesiser.synthesise([chunk])


def _best(run: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of `times` runs, after one to warm up: the machine is shared."""
    run()
    spent = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        spent.append(time.perf_counter() - begin)
    return min(spent)


def _speed(vocoders: dict[str, tuple[Vocoder, int]]) -> str:
    lines = [
        "| network | threads | first chunk, ms | later chunk, ms | it lasts, ms | RTF |",
        "|---|---|---|---|---|---|",
    ]
    for name, (vocoder, times) in vocoders.items():
        sizes = vocoder.synthesiser.config.chunk_groups
        first, steady = _chunk(vocoder, 0), _chunk(vocoder, len(sizes))
        lasts = sizes[-1] * GROUP_SECONDS
        for threads in (1, 2):
            torch.set_num_threads(threads)
            run = vocoder.synthesiser.synthesise
            begin, on = (_best(partial(run, [chunk]), times) for chunk in (first, steady))
            lines.append(
                f"| {name} | {threads} | {begin * 1e3:.0f} | {on * 1e3:.0f} "
                f"| {lasts * 1e3:.0f} | {on / lasts:.2f} |"
            )
        torch.set_num_threads(1)
    return "\n".join(lines)


def _sessions(vocoder: Vocoder) -> str:
    lines = [
        "nano, one thread, sessions that wait at the same time for a steady chunk:",
        "",
        "| sessions | ms each, batched | ms each, one by one |",
        "|---|---|---|",
    ]
    chunk = _chunk(vocoder, len(vocoder.synthesiser.config.chunk_groups))
    alone = _best(partial(vocoder.synthesiser.synthesise, [chunk]), 5)
    for sessions in (1, 2, 4, 8):
        each = _best(partial(vocoder.synthesiser.synthesise, [chunk] * sessions), 3) / sessions
        lines.append(f"| {sessions} | {each * 1e3:.0f} | {alone * 1e3:.0f} |")
    return "\n".join(lines)


def _seams(vocoder: Vocoder) -> str:
    answers = [answer["tokens"] for answer in json.loads(ANSWERS.read_text())]
    utterances = [[*a, *b, *c, *d] for a, b, c, d in zip(*[iter(answers[:16])] * 4, strict=True)]
    noise, config = KeyedNoise(), vocoder.synthesiser.config
    wholes = whole_sounds(vocoder, utterances, config, noise)
    first = config.chunk_groups[0] * GROUP_TOKENS
    rows = {
        f"ours (waits for {first} tokens)": measure(vocoder, utterances, config, noise, wholes),
        "published scheme, hop 40 (waits for 60)": measure_published(
            vocoder, utterances, noise, FIXTURE_HOP
        ),
        "published scheme, hop 83 (waits for 103)": measure_published(
            vocoder, utterances, noise, PUBLISHED_HOP
        ),
    }
    lines = [
        "nano, streamed against whole (log-mel distance in nepers):",
        "",
        "| scheme | distance at joins | elsewhere | ratio | clicks | lengths equal |",
        "|---|---|---|---|---|---|",
        *(_row(name, report) for name, report in rows.items()),
    ]
    return "\n".join(lines)


def _row(name: str, report: Report) -> str:
    return (
        f"| {name} | {report.join_distance:.3f} | {report.distance:.3f} "
        f"| {report.join_ratio:.2f} | {report.clicks} of {report.joins} "
        f"| {'yes' if report.same_lengths else 'no'} |"
    )
