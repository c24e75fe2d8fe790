"""Who may come in: API keys, client secrets, and how many at once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aqaa.models.errors import CapacityError, UnauthorizedError
from aqaa.server.gateway.client_secrets import SECRET_PREFIX, open_secret, seal_secret
from aqaa.server.protocol.types import Json

SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."  # how a browser, which sets no headers, sends a key
ANYBODY = "anonymous"


@dataclass(frozen=True)
class Caller:
    """Whom a session counts for, and the session settings that came with a client secret."""

    name: str
    session: Json


class Keys:
    """API keys, and the client secrets that are signed with them."""

    def __init__(self, keys: Sequence[str], now: Callable[[], float] = time.time) -> None:
        self._keys = [key.encode() for key in keys]
        self._names = [caller_name(key) for key in self._keys]
        # Without keys anybody may come; a secret then only carries its settings.
        self._signers = self._keys or [secrets.token_bytes(32)]
        self._now = now

    def check_key(self, key: str | None) -> Caller:
        """The caller who shows this API key. Without configured keys anybody may come, with any.

        Raises:
            UnauthorizedError: the key is missing or unknown, or a client secret.
        """
        if not self._keys:
            return Caller(ANYBODY, {})
        if key is None:
            raise UnauthorizedError("an API key is needed: send `Authorization: Bearer KEY`")
        if key.startswith(SECRET_PREFIX):
            raise UnauthorizedError("a client secret opens conversations at /v1/realtime only")
        given = _raw(key)
        # Every key is compared, each in constant time: neither says how near a guess came.
        places = [n for n, known in enumerate(self._keys) if hmac.compare_digest(known, given)]
        if not places:
            raise UnauthorizedError("this API key is not known here")
        return Caller(self._names[places[0]], {})

    def check_session_key(self, key: str | None) -> Caller:
        """The caller who opens a conversation with this API key or client secret.

        Raises:
            UnauthorizedError: the key is missing, unknown or expired.
        """
        if key is None or not key.startswith(SECRET_PREFIX):
            return self.check_key(key)
        found = open_secret(self._signers, key.removeprefix(SECRET_PREFIX), self._now())
        if found is not None:
            signer, session = found
            return Caller(self._names[signer] if self._keys else ANYBODY, session)
        if not self._keys:
            return Caller(ANYBODY, {})
        raise UnauthorizedError("this client secret is not known here, or has expired")

    def make_secret(self, owner: str, seconds: int, session: Json) -> tuple[str, int]:
        """A new client secret of this caller, and when it expires (Unix seconds).

        Raises:
            ProtocolError: the settings are too large to travel in a secret.
        """
        signer = self._names.index(owner) if self._keys else 0
        expires = int(self._now()) + seconds
        return SECRET_PREFIX + seal_secret(self._signers[signer], expires, session), expires


class Gate:
    """Counts who is in, and refuses whoever would not be served well."""

    def __init__(self, most: int, offered: Callable[[int], int] | None = None) -> None:
        """Nobody is in yet.

        Args:
            most: places.
            offered: how many places are offered while so many are taken; None: all.
        """
        self._most = most
        self._offered = offered
        self._inside = 0
        self._left = asyncio.Event()
        self.draining = False

    def inside(self) -> int:
        """How many are in."""
        return self._inside

    def places(self) -> int:
        """How many may be in."""
        return self._most if self._offered is None else self._offered(self.inside())

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside for the length of a `with`.

        Raises:
            CapacityError: the server is full or going down.
        """
        if self.draining:
            raise CapacityError("the server is going down; connect to another")
        most = self.places()
        if self._inside >= most:
            raise CapacityError(f"all {most} places are taken; try again later")
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._left.set()

    async def empty(self) -> None:
        """Wait until nobody is in."""
        while self._inside:
            self._left.clear()
            await self._left.wait()


def caller_name(key: bytes) -> str:
    """What the holder of an API key is called, at every gateway, without telling the key."""
    return f"key-{hashlib.sha256(b'aqaa caller' + key).hexdigest()[:16]}"


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key in an `Authorization: Bearer` header (or `api-key`, as Azure's clients send it)."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return headers.get("api-key")


def offered(subprotocols: Sequence[str]) -> tuple[str | None, str | None]:
    """The key among a browser's subprotocols, and the subprotocol to accept."""
    keys = [p.removeprefix(KEY_SUBPROTOCOL) for p in subprotocols if p.startswith(KEY_SUBPROTOCOL)]
    return (keys[0] if keys else None), (SUBPROTOCOL if SUBPROTOCOL in subprotocols else None)


def _raw(key: str) -> bytes:
    """The bytes that were sent: headers come as Latin-1, subprotocols with escapes."""
    try:
        return key.encode("latin-1")
    except UnicodeEncodeError:
        return key.encode("utf-8", "surrogateescape")
