"""`aqaa vocode`: what it accepts, and the picture that it draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from tiny_vocoder import tokens

from aqaa.models.errors import InputError, TokenError
from aqaa.server.cli.vocode import read_tokens
from aqaa.vocoder.picture import spectrogram

RATE = 22_050  # Hz
OFFSET = 1024  # nano's; small enough for audio tokens and decoder ids to overlap


def written(directory: Path, content: object) -> Path:
    path = directory / "tokens.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_audio_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    assert read_tokens(written(tmp_path, tokens(3)), OFFSET) == tokens(3)


@pytest.mark.parametrize("offset", [OFFSET, 65_536])
def test_decoder_ids_lose_their_offset(tmp_path: Path, offset: int) -> None:
    ids = [token + offset for token in tokens(3)]
    assert read_tokens(written(tmp_path, ids), offset) == tokens(3)
    assert read_tokens(written(tmp_path, {"ids": ids, "other": 1}), offset) == tokens(3)


def test_out_of_range_ids_are_named(tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="9999 at index 0"):
        read_tokens(written(tmp_path, [9999, *tokens(1)[1:]]), OFFSET)


@pytest.mark.parametrize("content", ["not json", {"x": 1}, ["a"], [1.5], [True]])
def test_what_is_no_list_of_numbers_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError, match=r"tokens\.json"):
        read_tokens(written(tmp_path, content), OFFSET)


def drawn(sound: np.ndarray, joins: list[int]) -> Axes:
    return spectrogram(sound, RATE, joins).axes[0]


def test_a_tone_is_a_line_at_its_frequency() -> None:
    kilohertz = RATE / 4 / 1000
    tone = np.sin(2 * np.pi / 4 * np.arange(RATE)).astype(np.float32)
    (image,) = drawn(tone, []).images
    left, right, low, high = image.get_extent()
    level = np.asarray(image.get_array())  # row 0 lies at the bottom
    row = int(level.mean(axis=1).argmax())
    assert (left, right) == (0.0, 1.0)
    assert low + (high - low) * row / (len(level) - 1) == pytest.approx(kilohertz, rel=0.01)


def test_joins_are_lines_where_they_are() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
    assert not drawn(noise, []).lines
    marked = drawn(noise, [RATE // 4, RATE // 2]).lines
    assert [float(line.get_xdata()[0]) for line in marked] == pytest.approx([0.25, 0.5], abs=1e-4)
