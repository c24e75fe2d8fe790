"""What the user's words cost and when they come: the same questions with and without them.

The bundle is nano. If nano has no head of its own, it is given one of the trained one's size with
random weights: what that computes costs what a trained one would, its words mean nothing. Questions
with and without words take turns on one server.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import torch
from bench_tables import markdown
from recorded_questions import Sound, questions
from safetensors.torch import save_file
from serving import serving

from aqaa.clients.client import Connection, connect
from aqaa.clients.load_test import percentile
from aqaa.clients.turn import speak
from aqaa.models.bundle import load_bundle, nano_path
from aqaa.recipe.pack import TRANSCRIBER
from aqaa.recipe.transcriber.head import BLOCKS, INNER, KERNEL, ROWS
from aqaa.server.protocol.client_events import ClientEvent
from aqaa.server.protocol.server_events import (
    InputAudioTranscriptionCompleted,
    InputAudioTranscriptionDelta,
    ResponseOutputAudioDelta,
    ServerEvent,
)
from aqaa.tokenizers.linguistic import LinguisticTokenizer
from aqaa.tokenizers.transcriber_ctc import CtcHead

TITLE = "The user's words (nano; a head of random weights unless it has its own)"
ROUNDS = 5
PIECES = 512
LIVE = "gpt-realtime-whisper"  # the name whose words come while the user speaks
SETTLE_SECONDS = 1.0  # after an answer, for words that come late


@dataclass
class Turn:
    """When things happened, in seconds of the clock of `time.monotonic`."""

    heard_after: float = 0.0
    began: float = 0.0  # the microphone
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
        self._turn.began = self._turn.began or time.monotonic()
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


def main(rounds: int = ROUNDS) -> str:
    """Markdown: turns with and without words. Takes about six minutes."""
    turns: dict[bool, list[Turn]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_with_words(Path(folder) / "bundle")
        with serving(Path(folder) / "log", str(bundle)) as url:
            for _ in range(rounds):
                for wave in questions():
                    for words in turns:
                        turns[words].append(asyncio.run(asked(url, wave, words=words)))
    rows = [
        [name, str(len(turns[words])), *_quantiles([turn.heard_after for turn in turns[words]])]
        for name, words in (("without", False), ("with", True))
    ]
    told = [turn for turn in turns[True] if turn.completed is not None]
    never = float("inf")
    before = [t for t in told if (t.completed or never) < (t.first_sound or never)]
    gaps = [b - a for turn in told for a, b in zip(turn.words, turn.words[1:], strict=False)]
    first = [turn.words[0] - turn.began for turn in told if turn.words]
    table = markdown(["words", "turns", "heard p50", "p95"], rows)
    return (
        f"Milliseconds from the last sample of speech to the first of the answer.\n\n{table}\n\n"
        f"`completed` came in {len(told)} of {len(turns[True])} turns, before the answer's first "
        f"sound in {len(before)}. The first word came {_quantiles(first)[0]} ms after the "
        f"microphone opened (p50), then one each {_quantiles(gaps)[0]} ms."
    )


def bundle_with_words(folder: Path) -> Path:
    """nano, if it has a transcriber; else a copy in `folder` with a random one."""
    nano = load_bundle(nano_path())
    if nano.transcriber is not None:
        return nano_path()
    shutil.copytree(nano_path(), folder, ignore=shutil.ignore_patterns("examples", "*.md"))
    with (folder / "aqaa.toml").open("a", encoding="utf-8") as toml:
        toml.write(TRANSCRIBER)
    torch.manual_seed(0)
    encoder = LinguisticTokenizer.load(nano.tokenizer).encoder
    width = encoder.output_size + encoder.input_size
    head = CtcHead(width, INNER, KERNEL, BLOCKS, ROWS, PIECES)
    (folder / "transcriber").mkdir()
    save_file(head.state_dict(), folder / "transcriber" / "model.safetensors")
    pieces = ["<blank>", *(f"\u2581w{number}" for number in range(1, PIECES))]
    (folder / "transcriber" / "pieces.json").write_text(json.dumps(pieces), encoding="utf-8")
    return folder


async def asked(url: str, wave: Sound, *, words: bool) -> Turn:
    """One question in a conversation of its own."""
    turn = Turn()
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
