"""Moments at which a listener wonders whether the speaker has finished, in speech as it is heard.

A clip is asked about at the end of each of its words, where a speaker who pauses has not finished,
and at its end. Where one text is the beginning of another, as orders are, such a moment is the end
as often as it is in the corpus. Beside these what is no turn: backchannels, coughs, dishes, and the
assistant's own voice through a room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aqaa.recipe.decoder.clips import trim
from aqaa.recipe.speech.augment import RATE, add_noise, distort, in_room
from aqaa.recipe.speech.noises import draw_noise, kitchen
from aqaa.recipe.speech.voices import Wave

FRAME = RATE // 100
LEAD = (0.1, 0.5)  # seconds of quiet before speech that a turn begins with
ASKED = (0.05, 0.25)  # seconds of quiet after which is asked
PAUSED, PAUSE = 0.4, (0.15, 0.9)  # share of clips that pause once and go on; seconds
ROUGH = 0.25  # share through a room, noise or telephone: a few moments each, for they have
ROUGH_BREAKS = 2  # nothing in common
SNR, LOUD = (30.0, 60.0), (0.15, 1.0)  # of the others: dB, level
NEAR = 0.05  # share on both sides of a place in which the quietest moment is looked for
# Of interruptions, the share that is asked whether it ends: were it more, all that is short would.
ALL_SAID = 0.2
# As synthesisers can say them: they spell "mhm" and "hm", letter by letter.
BACKCHANNELS = (
    "Um hum.", "Uh huh.", "Yeah.", "Yes.", "Okay.", "Right.", "Sure.", "I see.", "Aha.", "Oh.",
    "Huh.", "Ah.", "Ah, okay.", "Yeah, yeah.", "Okay, okay.", "Oh, right.", "Great.", "Cool.",
    "Wow.", "Really.", "Oh, I see.", "Um hum, um hum.", "Good.", "Nice.", "Oh, nice.", "Alright.",
    "Exactly.", "True.", "Ha ha.", "Got it.",
)  # fmt: skip

# Said into an answer, to end it: as short as a backchannel, and meant.
INTERRUPTIONS = (
    "Stop.", "Wait.", "Stop it.", "Hold on.", "Wait a moment.", "No.", "No, no.", "No, stop.",
    "Please stop.", "Be quiet.", "Quiet.", "Enough.", "That is enough.", "Never mind.",
    "Forget it.", "Cancel that.", "Not that one.", "That is wrong.", "What?", "But why?",
    "Excuse me.", "Say that again.", "Can you repeat that?", "Slower, please.", "Louder.",
    "Next question.", "Another question.", "Sorry, one more thing.", "Let me ask something else.",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """Whether a speaker has finished at a place of a clip.

    Attributes:
        place: samples of the clip that were heard so far.
        quiet: what is heard behind them until it is asked.
        end: the answer; None where that is not the question.
    """

    place: int
    quiet: Wave
    end: bool | None


@dataclass(frozen=True)
class Heard:
    """A clip as a microphone has it, float32 16 kHz.

    Attributes:
        questions: by their places.
        kind: index into `turn_head.KINDS`.
    """

    wave: Wave
    questions: tuple[Question, ...]
    kind: int


def broken(wave: Wave, text: str, rng: np.random.Generator) -> list[Heard]:
    """The clip `wave`, which says `text`, with a question at the end of every word."""
    speech = trim(wave, 0.0)
    places = sorted({quiet_place(speech, share) for share in word_ends(text)})
    if places and rng.random() < PAUSED:
        which = int(rng.integers(len(places)))
        place, pause = places[which], int(rng.uniform(*PAUSE) * RATE)
        speech = np.insert(speech, place, np.zeros(pause, np.float32))
        places[which + 1 :] = [later + pause for later in places[which + 1 :]]
    if rng.random() < ROUGH:
        breaks = rng.permutation(places)[:ROUGH_BREAKS].tolist()
        return [
            *(_whole(speech[:place], False, 0, rng, rough=1.0) for place in breaks),
            _whole(speech, True, 0, rng, rough=1.0),
        ]
    return [_in_quiet(speech, places, rng)]


def _in_quiet(speech: Wave, places: Sequence[int], rng: np.random.Generator) -> Heard:
    """One recording for all questions, the last twice."""
    lead, tail = int(rng.uniform(*LEAD) * RATE), int(ASKED[1] * RATE)
    wave = np.pad(speech, (lead, tail)).astype(np.float32) * np.float32(rng.uniform(*LOUD))
    power = np.sqrt(np.square(wave, dtype=np.float64).mean())
    floor = draw_noise(len(wave), rng) * power * 10 ** (-rng.uniform(*SNR) / 20)
    questions = []
    for place in (*places, len(speech), len(speech)):
        quiet = floor[-int(rng.uniform(*ASKED) * RATE) :].astype(np.float32)
        questions.append(Question(lead + place, quiet, place == len(speech)))
    return Heard((wave + floor).astype(np.float32), tuple(questions), 0)


def backchannel(wave: Wave, rng: np.random.Generator) -> Heard:
    """Of a clip that says one of `BACKCHANNELS`."""
    return _whole(trim(wave, 0.0), None, 1, rng)


def interruption(wave: Wave, rng: np.random.Generator) -> Heard:
    """Of a clip that says one of `INTERRUPTIONS`, which is all that is said."""
    end = True if rng.random() < ALL_SAID else None
    return _whole(trim(wave, 0.0), end, 0, rng)


def disturbance(answer: Wave, rng: np.random.Generator) -> Heard:
    """A cough, dishes, or the assistant's own `answer` from a loudspeaker in the room."""
    kind = rng.random()
    n = int(rng.uniform(0.3, 1.5) * RATE)
    if kind < 0.35:
        wave = cough(rng)
    elif kind < 0.6:
        wave = (0.1 * kitchen(n, rng)).astype(np.float32)
    else:
        start = int(rng.integers(max(1, len(answer) - n)))
        wave = in_room(
            answer[start : start + n], rng, rng.uniform(0.3, 1.5), rng.uniform(0.15, 0.5)
        )
        wave = wave * np.float32(10 ** (rng.uniform(-30, -6) / 20))
    return _whole(wave, None, 2, rng)


def cough(rng: np.random.Generator) -> Wave:
    """One to three bursts of noise, each sharp at first, through a throat's resonances."""
    bursts = []
    for _ in range(int(rng.integers(1, 4))):
        n = int(rng.uniform(0.12, 0.35) * RATE)
        spectrum = np.fft.rfft(rng.standard_normal(n))
        hertz = np.fft.rfftfreq(n, 1 / RATE)
        shape = np.zeros(len(hertz))
        for centre, width in ((600, 300), (1500, 500), (2800, 800)):
            middle = centre * rng.uniform(0.8, 1.25)
            shape += rng.uniform(0.2, 1.0) * np.exp(-(((hertz - middle) / width) ** 2))
        burst = np.fft.irfft(spectrum * shape, n)
        rise = np.minimum(1, np.arange(n) / (0.01 * RATE))
        burst *= rise * np.exp(-np.arange(n) / (rng.uniform(0.03, 0.12) * RATE))
        bursts += [0.5 * burst / np.abs(burst).max(), np.zeros(int(rng.uniform(0.03, 0.3) * RATE))]
    joined: Wave = np.concatenate(bursts[:-1]).astype(np.float32)
    return joined


def word_ends(text: str) -> list[float]:
    """About where each word but the last ends, as shares of the speech; letters take one time."""
    ends = [place for place, letter in enumerate(text.strip()) if letter == " "]
    return [place / len(text.strip()) for place in ends]


def quiet_place(speech: Wave, share: float) -> int:
    """The sample near `share` of `speech` where it is the quietest, in the middle of 10 ms."""
    frames = len(speech) // FRAME
    power = np.square(speech[: frames * FRAME].reshape(frames, FRAME)).mean(1)
    first = max(1, int((share - NEAR) * frames))
    last = max(first + 1, int((share + NEAR) * frames))
    return (first + int(np.argmin(power[first:last]))) * FRAME + FRAME // 2


def _whole(
    sound: Wave, end: bool | None, kind: int, rng: np.random.Generator, rough: float = ROUGH
) -> Heard:
    """`sound` between the quiet before it and that in which is asked, as a microphone has it."""
    lead, tail = (int(rng.uniform(*span) * RATE) for span in (LEAD, ASKED))
    wave = np.pad(sound, (lead, tail)).astype(np.float32)
    if rng.random() < rough:
        wave = distort(wave, rng)
    else:
        wave = add_noise(wave * np.float32(rng.uniform(*LOUD)), rng.uniform(*SNR), rng)
    return Heard(wave, (Question(len(wave), np.zeros(0, np.float32), end),), kind)
