"""Who may come in: keys, ephemeral secrets, web origins, and how many at once."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from aqaa.models.errors import CapacityError, UnauthorizedError
from aqaa.server.config import Settings
from aqaa.server.protocol.types import Json

SECRET_PREFIX = "ek_"
MAX_SECRETS = 10_000  # that have not expired: a bound on what a key's holder can make us keep
SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."  # how a browser, which sets no headers, sends a key
ANYBODY = "anonymous"
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Caller:
    """Whom a session counts for, and the session settings that came with an ephemeral secret."""

    name: str
    session: Json


@dataclass(frozen=True)
class _Secret:
    owner: str
    expires_at: float
    session: Json


class Keys:
    """API keys, and the ephemeral secrets made with them."""

    def __init__(self, keys: Sequence[str], now: Callable[[], float] = time.time) -> None:
        self._keys = [key.encode() for key in keys]
        self._secrets: dict[str, _Secret] = {}
        self._now = now

    def check(self, key: str | None) -> Caller:
        """The caller who shows this key. Without configured keys anybody may come, with any.

        Raises:
            UnauthorizedError: the key is missing, unknown or expired.
        """
        if key is not None and key.startswith(SECRET_PREFIX):
            return self._check_secret(key)
        if not self._keys:
            return Caller(ANYBODY, {})
        given = (key or "").encode()
        # Every key is compared, each in constant time: neither says how near a guess came.
        places = [n for n, known in enumerate(self._keys) if hmac.compare_digest(known, given)]
        if not places:
            raise UnauthorizedError(
                "this server wants an API key: send `Authorization: Bearer KEY`"
                if key is None
                else "this API key is not known here"
            )
        return Caller(f"key-{places[0]}", {})

    def make_secret(self, owner: str, seconds: int, session: Json) -> tuple[str, int]:
        """A new ephemeral secret, and when it expires (Unix seconds). Usable until then.

        Raises:
            CapacityError: too many are alive.
        """
        now = self._now()
        self._secrets = {k: s for k, s in self._secrets.items() if s.expires_at > now}
        if len(self._secrets) >= MAX_SECRETS:
            raise CapacityError("too many client secrets are alive; wait for some to expire")
        value = SECRET_PREFIX + secrets.token_urlsafe(32)
        self._secrets[value] = _Secret(owner, now + seconds, session)
        return value, int(now + seconds)

    def _check_secret(self, key: str) -> Caller:
        # A look-up by 256 random bits: timing tells nothing that could be used.
        secret = self._secrets.get(key)
        if secret is None or secret.expires_at <= self._now():
            if not self._keys:
                return Caller(ANYBODY, {})
            raise UnauthorizedError("this client secret is not known here, or has expired")
        return Caller(secret.owner, secret.session)


class Gate:
    """Counts who is in, and refuses whoever would not be served well."""

    def __init__(self, most: int, most_per_caller: int | None) -> None:
        self._most = most
        self._most_per_caller = most_per_caller
        self._callers: Counter[str] = Counter()
        self._left = asyncio.Event()
        self.draining = False

    def inside(self) -> int:
        """How many are in."""
        return self._callers.total()

    @contextmanager
    def enter(self, caller: str) -> Iterator[None]:
        """Be inside for the length of a `with`.

        Raises:
            CapacityError: the server is full or going down, or the caller has its share.
        """
        if self.draining:
            raise CapacityError("the server is going down; connect to another")
        if self.inside() >= self._most:
            raise CapacityError(f"all {self._most} places are taken; try again later")
        if self._most_per_caller is not None and self._callers[caller] >= self._most_per_caller:
            raise CapacityError(f"this key has its {self._most_per_caller} places; end one first")
        self._callers[caller] += 1
        try:
            yield
        finally:
            self._callers[caller] -= 1
            if not self._callers[caller]:
                del self._callers[caller]
            self._left.set()

    async def empty(self) -> None:
        """Wait until nobody is in."""
        while self.inside():
            self._left.clear()
            await self._left.wait()


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


def origin_is_ours(headers: Mapping[str, str], settings: Settings) -> bool:
    """Whether a web page may connect: one of ours, or of an origin that the settings allow.

    Without this any page that the user visits could talk to a server on the user's loopback.
    Programs send no Origin and pass.
    """
    origin = headers.get("origin")
    if origin is None or "*" in settings.allowed_origins or origin in settings.allowed_origins:
        return True
    page = urlsplit(origin)
    if settings.host in LOOPBACK and page.hostname not in LOOPBACK:
        return False  # a name that someone else has pointed at the user's loopback
    return page.netloc.lower() == headers.get("host", "").lower()
