"""Base64 as people send it."""

from __future__ import annotations

import base64
import random

import pytest

from aqaa.server.protocol.base64_data import decode_base64, encode_base64

DATA = random.Random(0).randbytes(3 * 2**20 + 1)  # a rest that is padded
STANDARD = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        STANDARD,
        base64.encodebytes(DATA).decode(),
        STANDARD.rstrip("="),
        base64.urlsafe_b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("=") + "\n",
        f"data:audio/wav;codecs=1;base64,{STANDARD}",
        f" DATA:audio/wav;Base64,{STANDARD}",
        f"\ufeff{STANDARD[:80]}\u00a0\v{STANDARD[80:]}",
    ],
    ids=[
        "standard",
        "line breaks",
        "no padding",
        "url-safe",
        "url-safe, no padding",
        "data URI",
        "DATA URI behind a blank",
        "byte order mark and other blanks",
    ],
)
def test_every_spelling_of_base64_is_read(text: str) -> None:
    assert decode_base64(text) == DATA


@pytest.mark.parametrize("text", ["###", "a", "ab=c", "AAAA====AAAA", "é", "data:audio/wav,AAAA"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|data URI"):
        decode_base64(text)


def test_what_is_encoded_is_decoded() -> None:
    assert decode_base64(encode_base64(DATA)) == DATA
