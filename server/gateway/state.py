"""What all connections and requests of one server share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from aqaa.models.errors import CapacityError
from aqaa.server.config import Settings
from aqaa.server.gateway.admission import Caller, Gate, Keys
from aqaa.server.parts import ModelParts

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
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    started: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, settings: Settings, parts: ModelParts) -> ServerState:
        """A server that has just started, over loaded and warmed parts."""
        least, most, measured = settings.min_sessions, settings.max_sessions, parts.places
        offered = None if measured is None else lambda taken: measured.offered(taken, least, most)
        sessions = Gate(most, settings.max_sessions_per_key, offered)
        parts.services.metrics.places.set_function(sessions.places)
        return cls(
            settings=settings,
            parts=parts,
            keys=Keys([key.get_secret_value() for key in settings.api_keys]),
            sessions=sessions,
            requests=Gate(settings.max_rest_requests, settings.max_rest_requests_per_key),
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

    @contextmanager
    def place(self, caller: Caller) -> Iterator[None]:
        """A place for one REST answer, for the length of a `with`.

        Raises:
            CapacityError: there is none.
        """
        metrics = self.parts.services.metrics
        try:
            with self.requests.enter(caller.name):
                metrics.requests.inc()
                try:
                    yield
                finally:
                    metrics.requests.dec()
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
