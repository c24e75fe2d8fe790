"""Speech as rooms, telephones and careless microphones give it, and noises, by the real VAD."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted import GroupTokenizer

from aqaa.models.bundle import nano_path
from aqaa.server.audio.files import read_audio
from aqaa.server.audio.wire import encode
from aqaa.server.compute.model import compute_alone
from aqaa.server.hearing.speech_events import SpeechEvent, TurnEnded, TurnStarted
from aqaa.server.hearing.speech_input import SpeechInput
from aqaa.server.hearing.tokenising import Tokenising
from aqaa.server.hearing.turn_detector import TurnRules
from aqaa.server.hearing.vad import VadModel
from aqaa.server.parts import WireFormat, input_of, wire_audio
from aqaa.server.protocol.session_types import ServerVad
from aqaa.server.protocol.types import PcmFormat, PcmuFormat

Sound = NDArray[np.float32]
RATE = 16_000
LATE = (
    0.1  # seconds of a turn's speech that may be missed: the padding before it is three times that
)


@pytest.fixture(scope="module")
def vad() -> VadModel:
    return VadModel.load()


def room(seconds: float, rate: int = RATE, level: float = 3e-4) -> Sound:
    return np.random.default_rng(0).normal(0, level, round(seconds * rate)).astype(np.float32)


def question(rate: int = RATE) -> Sound:
    """A question, without the quiet around it."""
    wave = read_audio(next((nano_path() / "examples").glob("1-*.flac")), rate)
    loud = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]


def tones(seconds: float, *pitches: float) -> Sound:
    time = np.arange(round(seconds * RATE)) / RATE
    return np.sum([0.2 * np.sin(2 * np.pi * f * time) for f in pitches], axis=0, dtype=np.float32)


def hear(vad: VadModel, wave: Sound, format: WireFormat) -> list[SpeechEvent]:
    rules = TurnRules.of(ServerVad())
    ears = SpeechInput(Tokenising(GroupTokenizer()), vad.stream(), input_of(format), rules, 60.0)
    data = encode(wave, wire_audio(format))
    step = len(data) // 50 // 2 * 2
    pieces = (data[at : at + step] for at in range(0, len(data), step))
    return list(itertools.chain.from_iterable(compute_alone(ears.push(one)) for one in pieces))


def hummed(wave: Sound) -> Sound:
    return wave + tones(wave.size / RATE, 50.0) / 4


@pytest.mark.parametrize(
    ("change", "format"),
    [
        (lambda wave: wave * 0.02, PcmFormat(rate=RATE)),
        (lambda wave: wave + 0.1, PcmFormat(rate=RATE)),
        (hummed, PcmFormat(rate=RATE)),
        (lambda wave: np.clip(wave * 8, -1, 1), PcmFormat(rate=RATE)),
        (lambda wave: wave, PcmuFormat()),
        (lambda wave: wave, PcmFormat(rate=44_100)),
    ],
    ids=["quiet", "offset", "hum", "clipped", "telephone", "44.1 kHz"],
)
def test_a_question_is_one_turn_from_its_beginning(
    vad: VadModel, change: Callable[[Sound], Sound], format: WireFormat
) -> None:
    rate = wire_audio(format).rate
    wave = np.concatenate((room(0.5, rate), question(rate), room(1.0, rate)))
    heard = hear(vad, change(wave).astype(np.float32), format)
    (begin,) = [one for one in heard if isinstance(one, TurnStarted)]
    assert begin.sample / RATE <= 0.5 + LATE
    assert len([one for one in heard if isinstance(one, TurnEnded)]) == 1


def test_a_word_of_a_quarter_of_a_second_is_a_turn(vad: VadModel) -> None:
    wave = question()
    size = RATE // 4
    at = int(np.convolve(wave**2, np.ones(size), "valid").argmax())
    ramp = np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / 160)
    word = (wave[at : at + size] * ramp).astype(np.float32)
    heard = hear(vad, np.concatenate((room(1.0), word, room(1.0))), PcmFormat(rate=RATE))
    assert [type(one) for one in heard if isinstance(one, TurnStarted | TurnEnded)] == [
        TurnStarted,
        TurnEnded,
    ]


def test_the_first_word_after_a_long_quiet_is_not_lost(vad: VadModel) -> None:
    wave = np.concatenate((room(60.0), question(), room(1.0)))
    (begin,) = [
        one for one in hear(vad, wave, PcmFormat(rate=RATE)) if isinstance(one, TurnStarted)
    ]
    assert begin.sample / RATE <= 60.0 + LATE


@pytest.mark.parametrize(
    "sound",
    [
        np.concatenate((tones(2.0, 440, 480), room(1.0), tones(2.0, 440, 480))),
        np.concatenate([np.concatenate((tones(0.15, 770, 1336), room(0.1)))] * 8),
        tones(4.0, 50, 100, 150),
        room(4.0, level=0.1),
        np.zeros(4 * RATE, np.float32),
    ],
    ids=["ringing", "keys", "hum", "noise", "nothing"],
)
def test_what_nobody_says_is_no_turn(vad: VadModel, sound: Sound) -> None:
    heard = hear(vad, np.concatenate((sound, room(1.0))), PcmFormat(rate=RATE))
    assert [one for one in heard if isinstance(one, TurnStarted)] == []
