"""Speech into an answer: what is taken for an interruption, and after how long.

Nano's ears hear each clip while they are told that an answer is being played, in blocks of 20 ms.
Times are of the sound's own clock, so the machine's load changes nothing. Real interruptions, words
of assent, and what nobody says: coughs, a kitchen, and the answer itself through a room.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
import torch
from bench_tables import markdown
from numpy.typing import NDArray
from scripted import GroupTokenizer

from aqaa.clients.load_test import percentile
from aqaa.models.bundle import TOKENIZER_RATE, load_bundle, nano_path
from aqaa.recipe.decoder.clips import trim
from aqaa.recipe.speech.cache import Utterance
from aqaa.recipe.speech.noises import kitchen
from aqaa.recipe.speech.rooms import draw_room, response, reverberate
from aqaa.recipe.speech.store import hear
from aqaa.recipe.speech.voices import TEACHER
from aqaa.recipe.turn.moments import cough
from aqaa.server.audio.wire import AudioFormat, InputConverter, encode
from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing.choose_judge import choose_judge
from aqaa.server.hearing.end_of_turn import Judge
from aqaa.server.hearing.speech_events import SpeechDismissed, SpeechSuspected, TurnStarted
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import CPU_BATCH, Tokenising
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.hearing.vad import VadModel
from aqaa.server.protocol.session_types import SemanticVad
from aqaa.tokenizers.dual import DualTokenizer

TITLE = "Speech into an answer (nano)"
LEGEND = (
    "ms from the first sample of the speech, p50 / p95: quiet: until the answer is made quiet; "
    "told: until it is known what it is. First syllable: interruptions whose sound was kept from "
    "its first sample on. By `server_vad` all that is suspected cuts the answer."
)
CLIPS = 60  # of each kind
REAL = (
    "Stop it, please.", "No, I meant Germany.", "What about Italy?", "That is enough.",
    "Wait, what is four times three?", "And what is the capital of Spain?", "Can you say it again?",
    "Tell me a joke instead.", "No no, the other one.", "Stop.", "Wait.", "Hold on.",
)  # fmt: skip
# "Um hum": a synthesiser spells "mhm", and its three letters are no assent.
ASSENT = ("Um hum.", "Uh huh.", "Yeah.", "Okay.", "Right.", "Yes.", "Sure.", "I see.")
ANSWERS = (
    "The capital of France is Paris, a city on the river Seine.",
    "Four times three is twelve, and twelve is also a dozen.",
)
VOICES = ("rms", "slt", "awb", "kal", "espeak_us_m1", "espeak_us_f2", "espeak_gb_f3")  # cheap ones
WIRE = AudioFormat("pcm16", TOKENIZER_RATE)
BLOCK = TOKENIZER_RATE // 50
BEFORE = TOKENIZER_RATE  # samples of the answer before anybody speaks
LEVEL = (0.05, 0.4)  # peak of what is said
FLOOR = 5e-4  # of the room's noise
DELAY = (0.02, 0.4)  # seconds until an echo comes back

Sound = NDArray[np.float32]


@dataclass(frozen=True)
class Clip:
    """What the microphone hears while `answer` is played, and where somebody begins to speak."""

    heard: Sound
    answer: Sound
    speech: int


@dataclass(frozen=True)
class Outcome:
    """What was made of a clip; ms from where speech begins, None: never.

    Attributes:
        quiet_ms, told_ms: when the answer was made quiet, and when it was known what it was.
        interrupted: whether the answer was cut.
        whole: whether the turn has all of the speech.
        dismissals: what it was taken for else, in turn.
    """

    quiet_ms: float | None
    told_ms: float | None
    interrupted: bool
    whole: bool
    dismissals: tuple[str, ...]


class Ears:
    """Nano's.

    Attributes:
        judge: a turn head that tells kinds; None: the bundle has none.
    """

    def __init__(self) -> None:
        bundle = load_bundle(nano_path())
        self._vad = VadModel.load()
        self.judge = choose_judge(bundle)[0] if bundle.turn and bundle.turn.kinds else None
        # Without a head nobody listens to the ids.
        ids = GroupTokenizer() if self.judge is None else DualTokenizer.load(bundle)
        self._tokenising = Tokenising(ids, CPU_BATCH)

    def hear(self, clip: Clip, judge: Judge | None) -> Outcome:
        """What is made of `clip`."""
        rules = TurnRules.of(SemanticVad())
        ears = SpeechInput(
            self._tokenising, self._vad.stream(), lambda: InputConverter(WIRE), rules, 20.0, judge
        )
        ears.assistant_plays(encode(clip.answer, WIRE), WIRE, 0.0)
        quiet = told = None
        interrupted = whole = False
        dismissals: list[str] = []
        for at in range(0, clip.heard.size, BLOCK):
            block = encode(clip.heard[at : at + BLOCK], WIRE)
            after = (at + BLOCK - clip.speech) * 1000 / TOKENIZER_RATE
            for event in compute_alone(ears.push(block)):
                match event:
                    case SpeechSuspected():
                        quiet = after if quiet is None else quiet
                    case SpeechDismissed():
                        told = after if told is None else told
                        dismissals.append(event.verdict)
                    case TurnStarted():
                        told = after if not interrupted else told
                        whole |= event.sample <= clip.speech
                        interrupted = True
                        ears.assistant_stops()
        return Outcome(quiet, told, interrupted, whole, tuple(dismissals))


def main(clips: int = CLIPS) -> str:
    """Markdown: a row for each kind of sound. About a minute of one core, with a head ten."""
    torch.set_num_threads(1)
    ears = Ears()
    kinds = kinds_of_clips(clips)
    judges: list[tuple[str, Judge | None]] = [("length, syllables", None)]
    if ears.judge is not None:
        judges.append((ears.judge.name, ears.judge))
    rows = [
        [
            name,
            kind,
            *cells([ears.hear(clip, judge) for clip in heard], real=kind == "interruption"),
        ]
        for name, judge in judges
        for kind, heard in kinds
    ]
    head = (
        "told by",
        "sound",
        "right",
        "suspected",
        "taken for",
        "quiet",
        "told",
        "first syllable",
    )
    return f"{LEGEND}\n\n{markdown(head, rows)}"


def kinds_of_clips(count: int) -> list[tuple[str, list[Clip]]]:
    """So many of each kind, the same each time."""
    rng = np.random.default_rng(16)
    answers = [hear(Utterance(text, TEACHER)) for text in ANSWERS]

    def spoken(texts: Sequence[str]) -> list[Clip]:
        said = [Utterance(texts[n % len(texts)], VOICES[n % len(VOICES)]) for n in range(count)]
        return [into(answers[n % 2], trim(hear(one), 0.0), rng) for n, one in enumerate(said)]

    def noises() -> list[Clip]:
        made = []
        for n in range(count // 2):
            seconds = float(rng.uniform(0.3, 1.5))
            wave = cough(rng) if n % 2 else kitchen(round(seconds * TOKENIZER_RATE), rng)
            made.append(into(answers[n % 2], wave.astype(np.float32), rng))
        return made

    def echoes() -> list[Clip]:
        return [echo(answers[n % 2], rng) for n in range(count - count // 2)]

    return [
        ("interruption", spoken(REAL)),
        ("assent", spoken(ASSENT)),
        ("cough, kitchen", noises()),
        ("echo", echoes()),
    ]


def into(answer: Sound, wave: Sound, rng: np.random.Generator) -> Clip:
    """`wave` into the middle of `answer`, of which a headset lets nothing through."""
    loud = wave * np.float32(rng.uniform(*LEVEL) / np.abs(wave).max())
    heard = np.pad(loud, (BEFORE, TOKENIZER_RATE))
    return Clip(with_floor(heard, rng), np.concatenate((answer, answer)), BEFORE)


def echo(answer: Sound, rng: np.random.Generator) -> Clip:
    """`answer` as it comes back from a loudspeaker in a room."""
    room = draw_room(rng, float(rng.uniform(0.3, 1.5)), float(rng.uniform(0.15, 0.5)))
    wet = reverberate(answer, response(room, rng))
    loud = wet * np.float32(rng.uniform(*LEVEL) / np.abs(wet).max())
    late = round(float(rng.uniform(*DELAY)) * TOKENIZER_RATE)
    return Clip(with_floor(np.pad(loud, (late, 0)), rng), answer, late)


def with_floor(wave: Sound, rng: np.random.Generator) -> Sound:
    """`wave` in a quiet room."""
    return (wave + FLOOR * rng.standard_normal(wave.size)).astype(np.float32)


def cells(outcomes: Sequence[Outcome], *, real: bool) -> list[str]:
    """The cells of a row."""
    right = [one.interrupted == real for one in outcomes]
    suspected = [one for one in outcomes if one.quiet_ms is not None]
    taken = [one.dismissals[0] if one.dismissals else "interruption" for one in suspected]
    cut = [one for one in outcomes if one.interrupted]
    counts = ", ".join(f"{kind} {taken.count(kind)}" for kind in sorted(set(taken)))
    return [
        share(sum(right), len(outcomes)),
        share(len(suspected), len(outcomes)),
        counts or "-",
        quantiles([one.quiet_ms for one in suspected if one.quiet_ms is not None]),
        quantiles([one.told_ms for one in suspected if one.told_ms is not None]),
        share(sum(one.whole for one in cut), len(cut)) if real else "-",
    ]


def share(count: int, of: int) -> str:
    """In per cent, and of how many."""
    return f"{100 * count / of:.0f} % of {of}" if of else "-"


def quantiles(values: Sequence[float]) -> str:
    """The 50th and the 95th percentile."""
    return " / ".join(f"{percentile(values, q):.0f}" for q in (50, 95)) if values else "-"
