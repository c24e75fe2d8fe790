"""The answer's level while it is doubtful whether it is interrupted."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from aqaa.server.audio.wire import AudioFormat, decode, encode
from aqaa.server.session.ducking import GAIN, LONGEST_SECONDS, RAMP_SECONDS, Ducking

FORMATS = [AudioFormat("pcm16", 24_000), AudioFormat("pcmu", 8_000)]


def tone(seconds: float, format: AudioFormat) -> bytes:
    return encode(np.full(round(seconds * format.rate), 0.5, np.float32), format)


def levels(data: bytes, format: AudioFormat) -> NDArray[np.float64]:
    return decode(data, format).astype(np.float64) / 0.5


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_what_is_played_during_the_doubt_is_low_after_a_ramp(format: AudioFormat) -> None:
    ducking = Ducking()
    ducking.begin(10.0)
    heard = levels(ducking.applied(tone(0.3, format), format, 10.05), format)
    ramp = round(RAMP_SECONDS * format.rate)
    assert heard[0] > 0.9
    assert np.allclose(heard[ramp:], GAIN, rtol=0.05)
    assert np.abs(np.diff(heard)).max() < 0.05


def test_what_is_played_after_any_verdict_is_not() -> None:
    ducking, format = Ducking(), FORMATS[0]
    data = tone(0.3, format)
    assert ducking.applied(data, format, 10.0) is data
    ducking.begin(10.0)
    assert ducking.applied(data, format, 10.0 + LONGEST_SECONDS) is data


def test_it_comes_back_within_a_piece_that_lasts_longer_than_the_doubt() -> None:
    ducking, format = Ducking(), FORMATS[0]
    ducking.begin(10.0)
    heard = levels(ducking.applied(tone(1.0, format), format, 10.1), format)
    low = round((LONGEST_SECONDS - 0.1) * format.rate)
    assert heard[low - 10] == pytest.approx(GAIN, rel=0.05)
    assert heard[low + round(RAMP_SECONDS * format.rate) + 10] == pytest.approx(1.0, rel=0.01)


def test_it_comes_back_with_a_ramp_once_the_doubt_is_settled() -> None:
    ducking, format = Ducking(), FORMATS[0]
    ducking.begin(10.0)
    ducking.applied(tone(0.1, format), format, 10.0)
    ducking.end()
    heard = levels(ducking.applied(tone(0.1, format), format, 10.1), format)
    assert heard[0] < 2 * GAIN
    assert heard[-1] == pytest.approx(1.0, rel=0.01)
    later = tone(0.1, format)
    assert ducking.applied(later, format, 10.2) is later


def test_pieces_of_any_size_make_one_ramp() -> None:
    format = FORMATS[0]
    whole, cut = Ducking(), Ducking()
    for ducking in (whole, cut):
        ducking.begin(10.0)
    data = tone(0.12, format)
    size = round(0.01 * format.rate) * 2
    pieces = [
        cut.applied(data[at : at + size], format, 10.0 + at / 2 / format.rate)
        for at in range(0, len(data), size)
    ]
    expected = levels(whole.applied(data, format, 10.0), format)
    assert np.allclose(levels(b"".join(pieces), format), expected, atol=1e-3)


def test_another_answer_begins_at_full_level() -> None:
    ducking, format = Ducking(), FORMATS[0]
    ducking.begin(10.0)
    ducking.applied(tone(0.1, format), format, 10.0)
    ducking.forget()
    data = tone(0.1, format)
    assert ducking.applied(data, format, 10.1) is data
