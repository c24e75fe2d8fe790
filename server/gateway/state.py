"""What all connections and requests of one server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from aqaa.models.errors import CapacityError
from aqaa.server.config import Settings
from aqaa.server.gateway.admission import Caller, Gate, Keys
from aqaa.server.gateway.intake import Intake
from aqaa.server.gateway.store import LocalStore, Store, share_of
from aqaa.server.observe.metrics import Metrics
from aqaa.server.parts import ModelParts
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.types import Json

PARTS = ("tokenizer", "vocoder", "vad", "engine", "gateway")
PartStatus = Literal["loading", "up", "down", "draining"]


@dataclass
class ServerState:
    """One server: settings, parts, who is in, and whether it is going down."""

    settings: Settings
    parts: ModelParts
    keys: Keys
    sessions: Gate
    requests: Gate
    store: Store
    intake: Intake
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    started: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, settings: Settings, parts: ModelParts) -> ServerState:
        """A server that has just started, over loaded and warmed parts; in a running loop."""
        least, most, measured = settings.min_sessions, settings.max_sessions, parts.places
        offered = None if measured is None else lambda taken: measured.offered(taken, least, most)
        sessions = Gate(most, offered)
        parts.services.metrics.places.set_function(sessions.places)
        return cls(
            settings=settings,
            parts=parts,
            keys=Keys([key.get_secret_value() for key in settings.api_keys]),
            sessions=sessions,
            requests=Gate(settings.max_rest_requests),
            store=_store(settings, parts.services.metrics),
            intake=Intake(parts.services.unheard),
        )

    def drain(self) -> None:
        """Take nobody in any more; sessions end when their answers have."""
        self.sessions.draining = self.requests.draining = True
        self.draining.set()

    def part_status(self) -> dict[str, PartStatus]:
        """Each part and how it is. The tokenizers, the vocoder and the VAD cannot go down alone."""
        return {
            "tokenizer": "up",
            "vocoder": "up",
            "vad": "up",
            "engine": "up" if self.parts.services.engine.alive else "down",
            "gateway": "draining" if self.draining.is_set() else "up",
        }

    async def new_session(
        self, type: object, settings: Json, expires_at: int | None = None
    ) -> Session:
        """A new session of this type with a client's settings, as `session.update` takes them.

        Raises:
            ProtocolError: they cannot be served; names the setting.
        """
        session = self.parts.session_of_type(type, expires_at)
        session = self.parts.configured(session, settings)
        if settings:
            await asyncio.to_thread(self.parts.limits().check_session, session)
        return session

    @asynccontextmanager
    async def conversation(self, caller: Caller) -> AsyncIterator[None]:
        """A place for one conversation, for the length of an `async with`.

        Raises:
            CapacityError: there is none.
        """
        most = self.settings.max_sessions_per_key
        with self.sessions.enter():
            async with share_of(self.store, "sessions", caller.name, most):
                yield

    @asynccontextmanager
    async def place(self, caller: Caller) -> AsyncIterator[None]:
        """A place for one REST answer, for the length of an `async with`.

        Raises:
            CapacityError: there is none.
        """
        metrics = self.parts.services.metrics
        most = self.settings.max_rest_requests_per_key
        try:
            with self.requests.enter():
                async with share_of(self.store, "requests", caller.name, most):
                    with metrics.requests.track_inprogress():
                        yield
        except CapacityError:
            metrics.refused.labels("server_full").inc()
            raise

    async def drained(self) -> None:
        """Drain, and wait until nobody is inside any more, for `drain_seconds` at most."""
        self.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_seconds):
                await self.sessions.empty()
                await self.requests.empty()


def _store(settings: Settings, metrics: Metrics) -> Store:
    if settings.store is None:
        return LocalStore()
    from aqaa.server.gateway.redis_store import RedisStore  # 0.1 s, for those who use it

    return RedisStore(settings.store, metrics.store_failures.inc)
