"""What the user's words cost and when they come: the same questions with and without them.

Two servers of nano, one of them without its transcriber: a server that has one writes every turn
down, for the conversation's own memory. Questions to the two take turns.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from bench_tables import markdown
from recorded_questions import FIRST_WORD_ENDS, Sound, questions
from serving import serving

from aqaa.clients.client import WIRE_RATE, Connection, connect
from aqaa.clients.load_test import percentile
from aqaa.clients.turn import speak
from aqaa.models.bundle import load_bundle, nano_path
from aqaa.recipe.pack import TRANSCRIBER
from aqaa.server.protocol.client_events import ClientEvent
from aqaa.server.protocol.server_events import (
    InputAudioTranscriptionCompleted,
    InputAudioTranscriptionDelta,
    ResponseOutputAudioDelta,
    ServerEvent,
)

TITLE = "The user's words (nano)"
ROUNDS = 5
LIVE = "gpt-realtime-whisper"  # the name whose words come while the user speaks
ASKED_SECONDS = 0.5  # from a word's end to its `delta`
SETTLE_SECONDS = 1.0  # after an answer, for words that come late


@dataclass
class Turn:
    """When things happened, in seconds of the clock of `time.monotonic`."""

    heard_after: float = 0.0
    opened: float = 0.0  # the microphone
    first_word: float = 0.0  # until it had heard the first word
    words: list[float] = field(default_factory=list)
    completed: float | None = None
    first_sound: float | None = None


class Watched:
    """A connection whose events are timed as they pass."""

    def __init__(self, server: Connection, turn: Turn) -> None:
        self._server = server
        self._turn = turn

    async def send(self, event: ClientEvent) -> None:
        await self._server.send(event)

    async def append(self, pcm: Sound) -> None:
        self._turn.opened = self._turn.opened or time.monotonic() - pcm.size / WIRE_RATE
        await self._server.append(pcm)

    async def __aiter__(self) -> AsyncIterator[ServerEvent]:
        async for event in self._server:
            now = time.monotonic()
            match event:
                case InputAudioTranscriptionDelta():
                    self._turn.words.append(now)
                case InputAudioTranscriptionCompleted():
                    self._turn.completed = now
                case ResponseOutputAudioDelta() if event.delta:
                    self._turn.first_sound = self._turn.first_sound or now
            yield event


def main(rounds: int = ROUNDS, some: int | None = None) -> str:
    """Markdown: turns with and without words, of `some` questions. Takes about six minutes."""
    turns: dict[bool, list[Turn]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        urls = {}
        for words in turns:
            bundle = nano(Path(folder) / f"bundle-{words}", words=words)
            log = Path(folder) / f"log-{words}"
            urls[words] = running.enter_context(serving(log, str(bundle)))
        for _ in range(rounds):
            for wave, end in [*zip(questions(), FIRST_WORD_ENDS, strict=True)][:some]:
                for words, url in urls.items():
                    turns[words].append(asyncio.run(asked(url, wave, end, words=words)))
    return _told(turns)


def _told(turns: Mapping[bool, Sequence[Turn]]) -> str:
    rows = [
        [name, str(len(turns[words])), *_quantiles([turn.heard_after for turn in turns[words]])]
        for name, words in (("without", False), ("with", True))
    ]
    told = [turn for turn in turns[True] if turn.completed is not None]
    never = float("inf")
    before = [t for t in told if (t.completed or never) < (t.first_sound or never)]
    gaps = [after - word for turn in told for word, after in pairwise(turn.words)]
    first = [turn.words[0] - turn.opened - turn.first_word for turn in told if turn.words]
    soon = sum(after <= ASKED_SECONDS for after in first)
    p50, p95 = _quantiles(first)
    table = markdown(["words", "turns", "heard p50", "p95"], rows)
    return (
        f"Milliseconds from the last sample of speech to the first of the answer.\n\n{table}\n\n"
        f"`completed` came in {len(told)} of {len(turns[True])} turns, before the answer's first "
        f"sound in {len(before)}. The first `delta` came {p50} ms after the first word had been "
        f"said to its end (p50; p95 {p95}), within {1000 * ASKED_SECONDS:.0f} ms in {soon}; then "
        f"one each {_quantiles(gaps)[0]} ms.\n\nTurns ended by a plain silence of 500 ms."
    )


def nano(folder: Path, *, words: bool) -> Path:
    """nano in `folder`, with or without its transcriber."""
    shutil.copytree(nano_path(), folder, ignore=shutil.ignore_patterns("examples", "*.md"))
    if not words:
        toml = folder / "aqaa.toml"
        toml.write_text(toml.read_text("utf-8").replace(TRANSCRIBER, ""), encoding="utf-8")
    assert (load_bundle(folder).transcriber is not None) == words
    return folder


async def asked(url: str, wave: Sound, first_word: float, *, words: bool) -> Turn:
    """One question in a conversation of its own; its first word ends after `first_word` seconds."""
    turn = Turn(first_word=first_word)
    async with connect(url) as server:
        watched = Watched(server, turn)
        await server.update_session(
            audio={"input": {"transcription": {"model": LIVE} if words else None}}
        )
        answer = await speak(watched, wave)
        turn.heard_after = answer.heard_after or float("inf")
        if words and turn.completed is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_SECONDS):
                    async for _ in watched:
                        if turn.completed is not None:
                            break
    return turn


def _quantiles(seconds: Sequence[float]) -> list[str]:
    return [f"{1000 * percentile(list(seconds), q):.0f}" if seconds else "-" for q in (50, 95)]
