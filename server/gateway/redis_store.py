"""Shared state in a Redis or Valkey server, which may be away at any moment.

    aqaa:audio:ID            an answer's decoder ids, 4 bytes each, little-endian; for an hour
    aqaa:places:KIND:CALLER  a sorted set: places that are taken, by when their lease ends

A place is a lease that its gateway renews, so a gateway that dies gives its places back by itself.
While the server is away no call waits for it longer than `STORE_SECONDS`: each gateway counts its
own places, an answer is not remembered, and naming one is refused with a word about it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from aqaa.models.errors import StoreError
from aqaa.server.gateway.store import (
    REMEMBER_SECONDS,
    Place,
    Places,
    has_its_share,
    is_forgotten,
)

log = logging.getLogger(__name__)

STORE_SECONDS: Final = 0.5  # for one call: longer would be heard
AWAY_SECONDS: Final = 1.0  # for which a server that did not answer is not asked again
LEASE_SECONDS: Final = 30  # of a place, after its gateway was last heard of
RENEW_SECONDS: Final = 10.0

# KEYS[1]: the caller's places; ARGV: lease seconds, most, the place. 1 if it is taken now.
TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""
# KEYS[1]: the caller's places; ARGV: lease seconds, places to renew.
RENEW = """
local time = redis.call('TIME')
for at = 2, #ARGV do redis.call('ZADD', KEYS[1], time[1] + ARGV[1], ARGV[at]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""

T = TypeVar("T")


class RedisStore:
    """The `Store` of several gateways. Made in the event loop that uses it."""

    def __init__(self, url: str, on_failure: Callable[[], None] = lambda: None) -> None:
        """`on_failure` is called for each call that the server did not answer."""
        self._redis = Redis.from_url(
            url,
            socket_timeout=STORE_SECONDS,
            socket_connect_timeout=STORE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once: a restarted server has closed our connections
        )
        self._take = self._redis.register_script(TAKE)
        self._renew = self._redis.register_script(RENEW)
        self._on_failure = on_failure
        self._away_until = 0.0
        self._is_away = False
        self._places = Places()
        self._held: set[Place] = set()
        self._left: set[Place] = set()
        self._changed = asyncio.Event()
        self._renewing = asyncio.create_task(self._keep_places())

    async def keep(self, audio_id: str, ids: Sequence[int]) -> int:
        """See `Store`; now if the server is away."""
        data = array("I", ids).tobytes()
        now = int(time.time())
        try:
            await self._ask(
                lambda: self._redis.set(f"aqaa:audio:{audio_id}", data, ex=REMEMBER_SECONDS)
            )
        except StoreError:
            return now
        return now + REMEMBER_SECONDS

    async def find(self, audio_id: str) -> tuple[int, ...]:
        """See `Store`."""
        try:
            data = await self._ask(lambda: self._redis.get(f"aqaa:audio:{audio_id}"))
        except StoreError as error:
            raise StoreError(
                f"{error}; send the transcript of {audio_id!r} as `content`, or try again later"
            ) from error
        if not isinstance(data, bytes) or len(data) % 4:
            raise is_forgotten(audio_id)
        ids = array("I")
        ids.frombytes(data)
        return tuple(ids)

    async def take(self, place: Place, most: int) -> None:
        """See `Store`; while the server is away the places of this process alone are counted."""
        self._places.take(place, most)
        try:
            taken = await self._ask(
                lambda: self._take(keys=[_key(place)], args=[LEASE_SECONDS, most, place.id])
            )
        except StoreError:
            taken = True
        except BaseException:
            self._places.give_back(place)
            self._forget(place)
            raise
        if not taken:
            self._places.give_back(place)
            raise has_its_share(most)
        self._held.add(place)

    def give_back(self, place: Place) -> None:
        """See `Store`. The server hears of it in a moment."""
        self._places.give_back(place)
        self._held.discard(place)
        self._forget(place)

    async def close(self) -> None:
        """See `Store`."""
        self._renewing.cancel()
        with suppress(asyncio.CancelledError):
            await self._renewing
        with suppress(StoreError):
            await self._tell(set(), self._left | self._held)
        await self._redis.aclose()

    def _forget(self, place: Place) -> None:
        self._left.add(place)
        self._changed.set()

    async def _keep_places(self) -> None:
        """Renew the leases, and tell of places that are free again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            left, self._left = self._left, set()
            with suppress(StoreError):  # the leases of those who have left end by themselves
                await self._tell(set(self._held), left)

    async def _tell(self, held: set[Place], left: set[Place]) -> None:
        by_key: dict[str, list[str]] = {}
        for place in held:
            by_key.setdefault(_key(place), []).append(place.id)
        for key, ids in by_key.items():
            await self._ask(partial(self._renew, keys=[key], args=[LEASE_SECONDS, *ids]))
        for place in left:
            await self._ask(partial(self._redis.zrem, _key(place), place.id))

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        """What the server answers.

        Raises:
            StoreError: it does not answer, or did not a moment ago.
        """
        if time.monotonic() < self._away_until:
            raise StoreError("the gateways' store does not answer")
        try:
            async with asyncio.timeout(STORE_SECONDS):
                answer = await call()
        except (RedisError, OSError, TimeoutError) as error:
            self._on_failure()
            self._away_until = time.monotonic() + AWAY_SECONDS
            if not self._is_away:
                log.warning("the gateways' store does not answer: %s", error or "timeout")
            self._is_away = True
            raise StoreError("the gateways' store does not answer") from error
        if self._is_away:
            log.warning("the gateways' store answers again")
        self._is_away = False
        return answer


def _key(place: Place) -> str:
    return f"aqaa:places:{place.kind}:{place.caller}"
