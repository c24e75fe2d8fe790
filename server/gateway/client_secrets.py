"""Client secrets: signed, so that no gateway keeps them and every gateway accepts them.

    ek_ PAYLOAD . SIGNATURE        both base64url
    PAYLOAD: {"expires": Unix seconds, "session": settings}
    SIGNATURE: HMAC-SHA256 of the payload under an API key

Gateways with the same API keys accept each other's secrets; a key that is taken away takes its
secrets with it. The payload is readable by its bearer, who may see these settings anyway.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence

from aqaa.server.protocol.base64_data import decode_base64
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.types import Json

SECRET_PREFIX = "ek_"
SESSION_BYTES = 4096  # of settings: a browser sends the secret in one header line, of 8 kB at most
PURPOSE = b"aqaa client secret\n"


def seal_secret(key: bytes, expires: int, session: Json) -> str:
    """A secret, without its prefix, that is signed with `key`.

    Raises:
        ProtocolError: the settings are larger than `SESSION_BYTES`.
    """
    payload = json.dumps(
        {"expires": expires, "session": session}, separators=(",", ":"), ensure_ascii=False
    ).encode()
    if len(payload) > SESSION_BYTES:
        raise ProtocolError(
            "string_above_max_length",
            f"the settings of a client secret may have {SESSION_BYTES} bytes of JSON; these have"
            f" {len(payload)}: send the rest with session.update",
            "session",
        )
    return _signed(key, payload)


def open_secret(keys: Sequence[bytes], text: str, now: float) -> tuple[int, Json] | None:
    """Which key signed the secret, and its settings; None if none did, or it has expired."""
    body, _, _ = text.partition(".")
    try:
        payload = decode_base64(body)
    except ValueError:
        return None
    for place, key in enumerate(keys):
        # Whole, as it was written: base64 has several spellings of the same bytes.
        if hmac.compare_digest(_signed(key, payload).encode(), text.encode(errors="replace")):
            content: Json = json.loads(payload)
            return (place, content["session"]) if content["expires"] > now else None
    return None


def _signed(key: bytes, payload: bytes) -> str:
    signature = hmac.digest(key, PURPOSE + payload, "sha256")
    return f"{_text(payload)}.{_text(signature)}"


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
