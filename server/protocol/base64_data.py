"""Base64 as people send it: one decoder for the WebSocket and for REST."""

from __future__ import annotations

from pybase64 import b64decode, b64encode_as_string

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
        return b64decode(text, validate=True)
    except ValueError:  # its own errors are, too
        pass
    try:
        plain = text.encode("ascii").translate(TO_STANDARD, BLANKS).rstrip(b"=")
        return b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError("this is not base64") from None


def encode_base64(data: bytes) -> str:
    """Base64 of the standard alphabet, with padding."""
    return b64encode_as_string(data)
