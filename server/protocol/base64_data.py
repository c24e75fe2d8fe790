"""Base64 as people send it: one decoder for the WebSocket and for REST."""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64

# Characters decoded or made at once: another thread waits at most some ms for its turn.
SLICE = 1 << 20
BLANKS = b" \t\r\n\v\f"
TO_STANDARD = bytes.maketrans(b"-_", b"+/")


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 of the standard or the URL-safe alphabet.

    White space, missing padding and a `data:...;base64,` prefix are accepted.

    Raises:
        ValueError: it is not base64.
    """
    if not text.isascii():  # no-break spaces, a byte order mark
        text = "".join(text.split()).strip("\ufeff")
    text = text.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError("a data URI must be data:...;base64,...")
    try:
        return _decode(text.encode("ascii"))
    except (Error, UnicodeEncodeError):
        pass
    try:
        plain = text.encode("ascii").translate(TO_STANDARD, BLANKS).rstrip(b"=")
        return _decode(plain + b"=" * (-len(plain) % 4))
    except (Error, UnicodeEncodeError):
        raise ValueError("this is not base64") from None


def encode_base64(data: bytes) -> str:
    """Base64 of the standard alphabet, with padding."""
    size = SLICE * 3 // 4
    pieces = (b64encode(data[at : at + size]) for at in range(0, len(data), size))
    return b"".join(pieces).decode("ascii")


def _decode(data: bytes) -> bytes:
    pieces = (data[at : at + SLICE] for at in range(0, len(data), SLICE))
    return b"".join(a2b_base64(piece, strict_mode=True) for piece in pieces)
