"""Moments at which a listener wonders whether the speaker has finished, cut out of speech.

From a clip: the whole with its silence (finished); the whole with a pause between two words
(finished, though it paused); and the clip broken off between two words (not finished), once
anywhere and once near its end, where a break sounds most like an end. Beside these what is no turn:
backchannels, coughs, dishes, and the assistant's own voice through a room.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from aqaa.recipe.decoder.clips import trim
from aqaa.recipe.domain.numbers import normalise
from aqaa.recipe.domain.values import values
from aqaa.recipe.speech.augment import RATE, add_noise, distort, in_room
from aqaa.recipe.speech.noises import kitchen
from aqaa.recipe.speech.voices import Wave

FRAME = RATE // 100
LEAD = (0.1, 0.5)  # seconds of quiet before speech that a turn begins with
ASKED = (0.05, 0.35)  # seconds of quiet after which is asked
LAST_WORDS = 3  # as many ends of words are near the end of a turn
PAUSE = (0.15, 0.9)  # seconds of a pause within a turn
ROUGH = 0.3  # share of moments through room, noise or telephone
NEAR = 0.05  # share on both sides of a place in which the quietest moment is looked for
BACKCHANNELS = (
    "Mhm.", "Uh huh.", "Yeah.", "Yes.", "Okay.", "Right.", "Sure.", "I see.", "Aha.", "Oh.", "Hm.",
    "Ah.", "Ah, okay.", "Yeah, yeah.", "Okay, okay.", "Oh, right.", "Great.", "Cool.", "Wow.",
    "Really.", "Oh, I see.", "Mhm, mhm.", "Good.", "Nice.", "Oh, nice.", "Alright.", "Exactly.",
    "True.", "Ha ha.", "Got it.",
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
class Moment:
    """Sound up to a moment in quiet: float32 16 kHz.

    Attributes:
        wave: what was heard so far.
        end: whether the speaker has finished; None where that is not the question.
        kind: index into `turn_head.KINDS`.
    """

    wave: Wave
    end: bool | None
    kind: int


def moments(
    wave: Wave, text: str, wholes: Collection[str], rng: np.random.Generator
) -> list[Moment]:
    """Moments of one clip that says `text`; `wholes` are the normalised texts that are complete."""
    speech = trim(wave, 0.0)
    found = [Moment(_heard(speech, rng), True, 0)]
    between = word_ends(text)
    if not between:
        return found
    late = between[max(0, len(between) - LAST_WORDS) :]
    for share in (rng.choice(between), rng.choice(late)):
        if not may_be_whole(text, share, wholes):
            place = quiet_place(speech, share)
            found.append(Moment(_heard(speech[:place], rng), False, 0))
    place = quiet_place(speech, rng.choice(between))
    pause = np.zeros(int(rng.uniform(*PAUSE) * RATE), np.float32)
    found.append(
        Moment(_heard(np.concatenate([speech[:place], pause, speech[place:]]), rng), True, 0)
    )
    return found


def backchannel(wave: Wave, rng: np.random.Generator) -> Moment:
    """Of a clip that says one of `BACKCHANNELS`."""
    return Moment(_heard(trim(wave, 0.0), rng), None, 1)


def interruption(wave: Wave, rng: np.random.Generator) -> Moment:
    """Of a clip that says one of `INTERRUPTIONS`, which is all that is said."""
    return Moment(_heard(trim(wave, 0.0), rng), True, 0)


def disturbance(answer: Wave, rng: np.random.Generator) -> Moment:
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
    return Moment(_heard(wave, rng), None, 2)


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


def may_be_whole(text: str, share: float, wholes: Collection[str]) -> bool:
    """Whether the first words of `text`, about a `share` of it, could be all of a turn."""
    words = normalise(text).split()
    about = share * len(text)
    for count in range(1, len(words)):
        length = len(" ".join(words[:count]))
        near = abs(length - about) <= 0.12 * len(text) + 3
        if near and (" ".join(words[:count]) in wholes or words[count - 1] in _drinks()):
            return True
    return False


def _drinks() -> set[str]:
    """Words after which an order of coffee is complete."""
    last = {drink.split()[-1] for drink in values()["drink"]}
    return last | {kind.split()[-1] for name in ("milk", "sugar") for kind in values()[name]}


def _heard(speech: Wave, rng: np.random.Generator) -> Wave:
    """`speech` between the quiet before it and that in which is asked, as a microphone has it."""
    lead, tail = (int(rng.uniform(*span) * RATE) for span in (LEAD, ASKED))
    wave = np.pad(speech, (lead, tail)).astype(np.float32)
    if rng.random() < ROUGH:
        return distort(wave, rng)
    return add_noise(wave * np.float32(rng.uniform(0.15, 1.0)), rng.uniform(30, 60), rng)
