"""What the client plays, and whether the microphone hears it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from aqaa.recipe.speech.rooms import draw_room, response, reverberate
from aqaa.server.audio.wire import AudioFormat, encode
from aqaa.server.hearing.interruption import ECHO
from aqaa.server.hearing.loudspeaker import LATEST_SECONDS, Loudspeaker, echo_share

RATE = 16_000
PIECE = 0.25  # seconds
THIRD = 5120  # samples: 0.32 s
FORMATS = [AudioFormat("pcm16", 24_000), AudioFormat("pcm16", 48_000), AudioFormat("pcmu", 8_000)]
Samples = NDArray[np.float32]
Sound = NDArray[np.float64]


def wandering(n: int, every: int, low: float, high: float, rng: np.random.Generator) -> Sound:
    """`n` values between `low` and `high`, another each `every`."""
    knots = np.arange(0, n + 2 * every, every)
    return np.interp(np.arange(n), knots, rng.uniform(low, high, knots.size))


def voice(seconds: float, seed: int) -> Samples:
    """Something like speech: a buzz of changing pitch and colour, in syllables."""
    rng = np.random.default_rng(seed)
    n = round(seconds * RATE)
    buzz = np.sign(np.sin(2 * np.pi * np.cumsum(wandering(n, 4000, 80, 250, rng)) / RATE))
    filtered = np.convolve(buzz + 0.3 * rng.standard_normal(n), rng.standard_normal(24), "same")
    return (0.02 * filtered * wandering(n, 2000, 0, 1, rng)).astype(np.float32)


def playing(sound: Samples, format: AudioFormat, begin: int) -> Loudspeaker:
    """It plays `sound` from `begin` on, and was given it piece by piece."""
    loudspeaker = Loudspeaker()
    size = round(PIECE * RATE)
    for at in range(0, sound.size, size):
        wave = sound[at : at + size]
        there = np.interp(
            np.arange(round(wave.size * format.rate / RATE)) * RATE / format.rate,
            np.arange(wave.size),
            wave,
        )
        data = encode(there.astype(np.float32), format)
        loudspeaker.play(data, format, begin + at, now=begin)
    return loudspeaker


@pytest.mark.parametrize("format", FORMATS, ids=str)
@pytest.mark.parametrize("delay", [-0.1, 0.05, 0.3, 0.7])
def test_an_echo_is_found_whatever_its_delay_and_format(format: AudioFormat, delay: float) -> None:
    sound = voice(3.0, seed=1)
    loudspeaker = playing(sound, format, begin=10_000)
    at = 26_000
    first = at - 10_000 - round(delay * RATE)
    heard = 0.1 * sound[first : first + THIRD]
    assert loudspeaker.echo_in(heard, at) > 2 * ECHO


def test_an_echo_through_a_room_is_found() -> None:
    sound = voice(3.0, seed=1)
    loudspeaker = playing(sound, FORMATS[0], begin=0)
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(20):
        room = draw_room(rng, float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.15, 0.4)))
        heard = reverberate(sound, response(room, rng))[20_000 : 20_000 + THIRD]
        heard = heard + 0.05 * np.std(heard) * rng.standard_normal(heard.size)
        shares.append(loudspeaker.echo_in(heard.astype(np.float32), 20_000 + 3000))
    assert np.mean(np.array(shares) >= ECHO) >= 0.9


def test_another_voice_is_not() -> None:
    loudspeaker = playing(voice(3.0, seed=1), FORMATS[0], begin=0)
    shares = [loudspeaker.echo_in(voice(0.32, seed), 20_000) for seed in range(2, 42)]
    assert np.mean(np.array(shares) >= ECHO) <= 0.05


def test_who_speaks_over_an_echo_is_heard() -> None:
    sound = voice(3.0, seed=1)
    loudspeaker = playing(sound, FORMATS[0], begin=0)
    both = 0.3 * sound[20_000:25_120] + voice(0.32, seed=3)
    assert loudspeaker.echo_in(both, 20_000) < ECHO


def test_in_silence_there_is_none() -> None:
    loudspeaker = playing(voice(1.0, seed=1), FORMATS[0], begin=0)
    assert loudspeaker.echo_in(np.zeros(4000, np.float32), 8000) == 0
    assert echo_share(voice(0.1, 1), np.zeros(8000, np.float32)) == 0


def test_it_is_heard_from_its_first_sample_until_a_little_after_its_last() -> None:
    loudspeaker = playing(voice(1.0, seed=1), FORMATS[0], begin=8000)
    assert not loudspeaker.heard_at(7999)
    assert loudspeaker.heard_at(8000)
    assert loudspeaker.heard_at(24_000 + 4000)
    assert not loudspeaker.heard_at(24_000 + 5000)
    loudspeaker.stop(now=20_000)
    assert not loudspeaker.heard_at(9000)


def test_when_it_has_fallen_silent_what_was_played_till_then_still_comes_back() -> None:
    sound = voice(3.0, seed=1)
    loudspeaker = playing(sound, FORMATS[0], begin=0)
    loudspeaker.stop(now=24_000)
    early, late = 0.3 * sound[16_000:21_120], 0.3 * sound[32_000:37_120]
    assert loudspeaker.echo_in(early, 16_000) > 2 * ECHO
    assert loudspeaker.echo_in(late, 32_000) < ECHO


def test_what_was_played_long_ago_is_forgotten() -> None:
    loudspeaker = Loudspeaker()
    data = encode(voice(PIECE, seed=1), AudioFormat("pcm16", RATE))
    for number in range(100):
        at = number * 4000
        loudspeaker.play(data, AudioFormat("pcm16", RATE), at, now=at)
    kept = loudspeaker._played(0, 100 * 4000)
    assert not kept[: 100 * 4000 - 3 * RATE].any()
    assert kept[-round(LATEST_SECONDS * RATE) :].any()
