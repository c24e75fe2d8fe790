"""`aqaa vocode`: what it accepts, and the picture that it draws."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from tiny_vocoder import tokens

from aqaa.models.errors import InputError, TokenError
from aqaa.server.cli.vocode import read_tokens
from aqaa.vocoder.picture import FFT, HOP, SCALE, spectrogram

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


def pixels(picture: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The picture's pixels: PNG's only compressed part, each row after a filter byte of 0."""
    width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))
    start = picture.index(b"IDAT")
    length = int.from_bytes(picture[start - 4 : start], "big")
    data = np.frombuffer(zlib.decompress(picture[start + 4 : start + 4 + length]), np.uint8)
    return data.reshape(height, 1 + 3 * width)[:, 1:].reshape(height, width, 3)


def test_a_tone_is_a_line_at_its_frequency() -> None:
    rate, hertz, samples = 22_050, 5_512.5, 40 * HOP  # a quarter of the rate: half way up
    tone = np.sin(2 * np.pi * hertz / rate * np.arange(samples)).astype(np.float32)
    brightness = pixels(spectrogram(tone, [])).sum(axis=2)
    assert brightness.mean(axis=1).argmax() == FFT // 4


def test_joins_are_lines_where_they_are() -> None:
    noise = np.random.default_rng(0).standard_normal(40 * HOP).astype(np.float32) * 0.1
    plain, marked = (pixels(spectrogram(noise, joins)) for joins in ([], [10 * HOP]))
    columns = np.flatnonzero((plain != marked).any(axis=(0, 2)))
    assert columns.tolist() == [10 * SCALE]
