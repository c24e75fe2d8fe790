"""Small real programs in the models' places: deterministic ears, brain and voice for session tests.

The tokenizer makes one group of each 120 ms, the voice 2,646 samples of each group, the engine
answers with a legal woven stream at the pace that a test asks for, and dies when it is told to.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from aqaa.models.bundle import Bundle, TurnThresholds
from aqaa.models.errors import EngineDiedError, TokenError
from aqaa.server.audio.recordings import RecordingDecoder
from aqaa.server.clock import Clock, MonotonicClock
from aqaa.server.compute.chunk_delays import ChunkDelays
from aqaa.server.compute.executor import Executor
from aqaa.server.compute.model import Work, work_of
from aqaa.server.compute.places import IdPace
from aqaa.server.dialogue.prompt import PromptBuilder
from aqaa.server.engine.contract import EngineStats, SamplingParams, check_prompt
from aqaa.server.hearing.end_of_turn import Eagerness, Judge
from aqaa.server.hearing.interruption import Kinds
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.vad import FRAME_SAMPLES
from aqaa.server.observe.metrics import Metrics
from aqaa.server.parts import ModelParts, Services, synthesis_of, voices_of
from aqaa.tokenizers.dual import Encoded
from aqaa.tokenizers.funasr_encoder import EncoderState
from aqaa.tokenizers.steps import Steps, run_alone
from aqaa.tokenizers.transcriber import (
    Piece,
    Tail,
    Transcriber,
    TranscriptStream,
    Window,
    WindowOrTail,
)

AUDIO = 2000  # audio_offset: text ids are code points below it
EOT = 3
START, END = 5, 6
CALL_START, CALL_END = 11, 12
GROUP_SAMPLES = 1920  # 120 ms at 16 kHz
GROUP_SOUND = 2646  # 120 ms at 22.05 kHz
FIRST_LETTER = 32  # code points below are control ids

Samples = NDArray[np.float32]

RECORDINGS = RecordingDecoder()  # of all servers of a test's process: it takes a second to start
atexit.register(RECORDINGS.close)


def bundle(
    context: int = 4096, max_tokens: int = 1024, *, tools: bool = True, keep_pattern: bool = False
) -> Bundle:
    """A bundle that names no files. `tools`: whether it calls functions."""
    nowhere = Path("nowhere")
    return Bundle.model_validate(
        {
            "name": "scripted",
            "tokenizer": {"path": nowhere},
            "tokens": {
                "audio_offset": AUDIO,
                "audio_start": START,
                "audio_end": END,
                "voice_markers": {"amy": 7},
            },
            "tools": {"call_start": CALL_START, "call_end": CALL_END, "show": "signatures"}
            if tools
            else None,
            "decoder": {"path": nowhere, "context": context},
            "sampling": {"max_tokens": max_tokens, "keep_pattern": keep_pattern},
            "vocoder": {"path": nowhere},
            "voices": {"path": nowhere, "default": "joe"},
        }
    )


class Letters:
    """Each character is an id: its code point."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def knows(self, text: str) -> bool:
        return all(ord(character) < AUDIO for character in text)

    def stream(self) -> LetterStream:
        return LetterStream()


class LetterStream:
    def push(self, token: int) -> str:
        if not 0 <= token < AUDIO:
            raise TokenError(f"{token} is not a letter")
        return chr(token) if token >= FIRST_LETTER else ""

    def flush(self) -> str:
        return ""


class GroupTokenizer:
    """A group of five ids for each 120 ms; the ids tell how loud they were."""

    def stream(self) -> GroupStream:
        return GroupStream()

    def encoding(self, wav: Samples) -> Steps[None, None, Encoded]:
        stream, ids = self.stream(), list[int]()
        for begin in range(0, wav.size, 16_000):
            ids += yield from stream.pushing(wav[begin : begin + 16_000])
            yield
        ids += yield from stream.flushing()
        nothing = np.zeros(0, np.int32)
        return Encoded(nothing, nothing, ids, stream.take_windows())

    def run(self, requests: Sequence[None]) -> Sequence[None]:
        return requests

    def windows_of(self, wav: Samples) -> Iterator[list[WindowOrTail]]:
        stream = self.stream()
        for begin in range(0, wav.size, 16_000):
            run_alone(stream.pushing(wav[begin : begin + 16_000]), self.run)
            yield stream.take_windows()
        run_alone(stream.flushing(), self.run)
        yield stream.take_windows()


class GroupStream:
    """Its windows are of two frames, a group's; their states tell how loud it was."""

    def __init__(self, rest: Samples | None = None, windows: Sequence[WindowOrTail] = ()) -> None:
        self._rest = np.zeros(0, np.float32) if rest is None else rest
        self._windows = list(windows)

    def pushing(self, pcm: Samples) -> Steps[None, None, list[int]]:
        yield from ()
        self._rest = np.concatenate((self._rest, pcm))
        ids: list[int] = []
        while self._rest.size >= GROUP_SAMPLES:
            loud = int(np.abs(self._rest[:GROUP_SAMPLES]).mean() * 1000)
            self._rest = self._rest[GROUP_SAMPLES:]
            ids += group(loud % 1024)
            self._windows.append(Window(torch.full((7, 1), float(loud)), torch.zeros(2, 1)))
        return ids

    def flushing(self) -> Steps[None, None, list[int]]:
        yield from ()
        self._windows.append(Tail(EncoderState(0, torch.zeros(5, 1), 0, torch.zeros(0))))
        return []

    def fork(self) -> GroupStream:
        return GroupStream(self._rest.copy(), self._windows)

    def take_windows(self) -> list[WindowOrTail]:
        windows, self._windows = self._windows, []
        return windows


class CountingTranscriber:
    """Each loud group is a word, "one", "two", ...; the last comes out with the turn's end.

    With a `fault`, every window raises it.
    """

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault

    def stream(self, *, live: bool = False) -> CountingTranscript:
        return CountingTranscript(self)


class SayingTranscriber:
    """Each turn with anything loud in it says the next of `sentences`, once it is over."""

    def __init__(self, sentences: Sequence[str]) -> None:
        self.sentences = iter(sentences)

    def stream(self, *, live: bool = False) -> SaidTranscript:
        return SaidTranscript(self)


class SaidTranscript(TranscriptStream):
    def __init__(self, transcriber: SayingTranscriber) -> None:
        super().__init__()
        self._transcriber = transcriber
        self._loud = False

    def _copy_state(self, original: Self) -> None:
        self._transcriber, self._loud = original._transcriber, original._loud

    def _recognise(self, window: WindowOrTail) -> list[Piece]:
        if isinstance(window, Tail):
            return [Piece(next(self._transcriber.sentences), 0.0, 1.0, -0.5)] if self._loud else []
        self._loud |= float(window.states[0, 0]) >= 100
        return []


class CountingTranscript(TranscriptStream):
    NAMES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

    def __init__(self, transcriber: CountingTranscriber) -> None:
        super().__init__()
        self._transcriber = transcriber
        self._words: list[Piece] = []
        self._groups = 0

    def _copy_state(self, original: Self) -> None:
        self._transcriber, self._groups = original._transcriber, original._groups
        self._words = list(original._words)

    def _recognise(self, window: WindowOrTail) -> list[Piece]:
        if self._transcriber.fault is not None:
            raise self._transcriber.fault
        if isinstance(window, Tail):
            return self._words[-1:]
        self._groups += 1
        if float(window.states[0, 0]) < 100:
            return []
        blank, name = " " if self._words else "", self.NAMES[len(self._words) % 10]
        start = 0.12 * (self._groups - 1)
        self._words.append(Piece(blank + name, start, start + 0.12, -0.5))
        return self._words[-2:-1]


def group(code: int) -> list[int]:
    """A legal group of decoder ids, two linguistic and three semantic."""
    return [AUDIO + code, AUDIO + code, *[AUDIO + 1024 + code] * 3]


class ScriptedJudge:
    """Says what it is told to, one chance a quiet, the last again and again; keeps what it heard.

    `kinds`: what it takes every speaker's sound for. `asked`: the ids of the turn, at each time
    that it was asked.
    """

    name = "scripted"
    ask_after_ms = 64

    def __init__(self, *chances: float, kinds: Kinds | None = None) -> None:
        self._chances = list(chances)
        self.kinds = kinds
        self.asked: list[tuple[int, ...]] = []

    def thresholds(self, eagerness: Eagerness) -> TurnThresholds:
        return TurnThresholds(sure=0.9, likely=0.5, unlikely=0.1)

    def listen(self) -> ScriptedListener:
        return ScriptedListener(self)

    def say(self, turn: tuple[int, ...]) -> float:
        self.asked.append(turn)
        return self._chances.pop(0) if len(self._chances) > 1 else self._chances[0]


class ScriptedListener:
    def __init__(self, judge: ScriptedJudge) -> None:
        self._judge = judge
        self._ids: tuple[int, ...] = ()

    def hear(self, samples: Samples, ids: Sequence[int]) -> None:
        self._ids += tuple(ids)

    def chance_of_end(self, rest: Sequence[int]) -> Work[float]:
        return work_of(lambda: self._judge.say((*self._ids, *rest)))

    def kinds(self, rest: Sequence[int]) -> Work[Kinds | None]:
        return work_of(lambda: self._judge.kinds)


class LoudnessVad:
    """Whatever is loud is speech."""

    def stream(self) -> LoudnessVad:
        return self

    def push(self, samples: Samples) -> Work[list[float]]:
        yield from ()
        loud = np.abs(samples.reshape(-1, FRAME_SAMPLES)).mean(axis=1) > 0.05
        return [1.0 if one else 0.0 for one in loud]


class Voice:
    """Each group is a chunk: 120 ms of a sawtooth whose pitch tells the group and the voice."""

    def __init__(self, name: str, speed: float) -> None:
        self._name = name
        self._samples = round(GROUP_SOUND / speed)
        self._waiting: list[int] = []

    def feed(self, tokens: Sequence[int]) -> None:
        self._waiting += tokens

    def due(self, *, final: bool = False) -> tuple[Voice, int] | None:
        return (self, self._waiting[0]) if self._waiting else None

    def take(self, sound: Samples) -> Samples:
        self._waiting = self._waiting[5:]
        return sound

    def sound(self, token: int) -> Samples:
        period = 40 + token % 100 + len(self._name)
        wave = np.arange(self._samples) % period / period - 0.5
        return wave.astype(np.float32)


@dataclass(frozen=True)
class Voices:
    """Every stream is a voice of one kind."""

    kind: type[Voice] = Voice

    def stream(self, voice: str, speed: float = 1.0) -> Voice:
        return self.kind(voice, speed)

    def synthesise(self, chunks: Sequence[tuple[Voice, int]]) -> list[Samples]:
        return [voice.sound(token) for voice, token in chunks]

    max_batch = 4
    at_once = None

    def shape_of(self, chunk: tuple[Voice, int]) -> None:
        return None


def woven(text: str, groups: int) -> list[int]:
    """An answer as the model weaves it: ten letters, three groups, ..., the rest of the groups."""
    ids = [START]
    letters = [ord(character) for character in text]
    audio = [token for code in range(groups) for token in group(code)]
    while letters or audio:
        ids += letters[:10] + audio[:15]
        letters, audio = letters[10:], audio[15:]
    return [*ids, END, EOT]


def call(text: str) -> list[int]:
    """A call as the model writes it, whatever stands in it."""
    return [CALL_START, *map(ord, text), CALL_END]


@dataclass
class ScriptedEngine:
    """Says `answer(prompt)`, one id each `seconds`; raises after `dies_after` ids.

    With a `gate`, each answer waits after its first id until the gate is set. `reuses`: how many
    ids of each prompt it says it had computed before.
    """

    answer: Callable[[Sequence[int]], list[int]] = lambda prompt: woven("hello there", 6)
    seconds: float = 0.0
    dies_after: int | None = None
    gate: asyncio.Event | None = None
    reuses: int = 0
    alive: bool = True
    name: str = "scripted"
    vocab_size: int = AUDIO + 5120
    context: int = 4096
    warmed: list[tuple[int, ...]] = field(default_factory=list)
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    asked: list[SamplingParams] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    running: int = 0

    async def start(self) -> None:
        self.alive = True

    async def close(self) -> None:
        self.alive = False

    async def warm(self, session: str, prompt: Sequence[int]) -> int:
        check_prompt(prompt, self.vocab_size, self.context)
        self.warmed.append(tuple(prompt))
        return len(prompt)

    async def generate(
        self, session: str, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[int, None]:
        if not self.alive:
            raise EngineDiedError("the scripted engine is dead")
        check_prompt(prompt, self.vocab_size, self.context)
        self.prompts.append(tuple(prompt))
        self.asked.append(params)
        self.running += 1
        try:
            for count, token in enumerate(self.answer(prompt)[: params.max_tokens]):
                await asyncio.sleep(self.seconds)
                if self.gate is not None and count:
                    await self.gate.wait()
                if self.dies_after is not None and count >= self.dies_after:
                    self.alive = False
                    raise EngineDiedError("the scripted engine was told to die")
                yield token
        finally:
            self.running -= 1

    async def cancel(self, session: str) -> None:
        pass

    def reused(self, session: str) -> int:
        return self.reuses

    async def release(self, session: str) -> None:
        self.released.append(session)

    def stats(self) -> EngineStats:
        return EngineStats(running=self.running)


def scripted_parts(
    engine: ScriptedEngine | None = None,
    *,
    clock: Clock | None = None,
    executor: Executor | None = None,
    voices: Voices | None = None,
    speculation: bool = True,
    max_turn_seconds: float = 20.0,
    transcriber: Transcriber | None = None,
    judge: Judge | None = None,
    context: int = 4096,
    max_tokens: int = 1024,
    tools: bool = True,
    keep_pattern: bool = False,
) -> ModelParts:
    """All parts, scripted; close `parts.services.executor` when done."""
    parts = bundle(context, max_tokens, tools=tools, keep_pattern=keep_pattern)
    letters = Letters()
    tokenizer = GroupTokenizer()
    engine = engine or ScriptedEngine()
    clock = clock or MonotonicClock()
    metrics = Metrics()
    executor = executor or Executor(1, clock=clock, meters=[metrics.compute])
    metrics.watch(engine.stats, executor.waiting)
    voices = voices or Voices()
    return ModelParts(
        bundle=parts,
        tokenizer=tokenizer,
        tokenising=Tokenising(tokenizer),
        transcriber=transcriber,
        vad=LoudnessVad(),
        judge=judge,
        text=letters,
        prompts=PromptBuilder.of(parts, letters),
        voices=voices_of(("joe", "amy"), "joe"),
        services=Services(
            pace=IdPace(spoken_ids=70.0),
            chunk_delays=ChunkDelays(clock),
            engine=engine,
            vocoder=voices,
            synthesis=synthesis_of(voices),
            executor=executor,
            recordings=RECORDINGS,
            metrics=metrics,
            clock=clock,
            ahead_seconds=60.0,
        ),
        max_turn_seconds=max_turn_seconds,
        speculation=speculation,
    )


def pcm(seconds: float, *, loud: bool, rate: int = 24_000) -> bytes:
    """Speech (a square wave of 100 Hz) or silence, as pcm16."""
    places = np.arange(round(seconds * rate))
    wave = np.where(places * 200 // rate % 2, 8000, -8000) if loud else np.zeros(places.size)
    return wave.astype("<i2").tobytes()
