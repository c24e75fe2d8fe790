"""What the gateways of one deployment share: remembered answers, and each key's places.

A gateway alone keeps both in its memory. Several share a Redis or a Valkey (setting `store`).
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from aqaa.models.errors import CapacityError, InputError
from aqaa.server.protocol.ids import random_id

REMEMBER_SECONDS: Final = 3600  # for which `audio.id` stands for an answer; OpenAI's is an hour too
REMEMBER_ANSWERS: Final = 1000  # in one gateway's memory

Kind = Literal["sessions", "requests"]


@dataclass(frozen=True)
class Place:
    """One place of a caller's share."""

    kind: Kind
    caller: str
    id: str = field(default_factory=lambda: random_id("place"))


class Store(Protocol):
    """Where shared state is."""

    async def keep(self, audio_id: str, ids: Sequence[int]) -> int:
        """Remember an answer's decoder ids; returns when it is forgotten (Unix seconds)."""
        ...

    async def find(self, audio_id: str) -> tuple[int, ...]:
        """The decoder ids of an answer.

        Raises:
            InputError: it was never given, or is forgotten.
            StoreError: nobody can tell now.
        """
        ...

    async def take(self, place: Place, most: int) -> None:
        """Take this place, if its caller has fewer than `most` of this kind at all gateways.

        Raises:
            CapacityError: it has its share.
        """
        ...

    def give_back(self, place: Place) -> None:
        """The place is free again."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


@asynccontextmanager
async def share_of(store: Store, kind: Kind, caller: str, most: int | None) -> AsyncIterator[None]:
    """A place of the caller's share for the length of an `async with`; None: it has no bound.

    Raises:
        CapacityError: the caller has its share.
    """
    if most is None:
        yield
        return
    place = Place(kind, caller)
    await store.take(place, most)
    try:
        yield
    finally:
        store.give_back(place)


class Places:
    """The places that this process gave, counted."""

    def __init__(self) -> None:
        self._held: Counter[tuple[Kind, str]] = Counter()

    def take(self, place: Place, most: int) -> None:
        """Count one more.

        Raises:
            CapacityError: the caller has `most` of this process.
        """
        if self._held[place.kind, place.caller] >= most:
            raise has_its_share(most)
        self._held[place.kind, place.caller] += 1

    def give_back(self, place: Place) -> None:
        """Count one less."""
        key = (place.kind, place.caller)
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]


class LocalStore:
    """This process's memory: bounded, and for an hour."""

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[int, tuple[int, ...]]] = OrderedDict()
        self._places = Places()

    async def keep(self, audio_id: str, ids: Sequence[int]) -> int:
        """See `Store`; the oldest answer leaves when there are `REMEMBER_ANSWERS`."""
        expires = int(time.time()) + REMEMBER_SECONDS
        self._answers[audio_id] = (expires, tuple(ids))
        while len(self._answers) > REMEMBER_ANSWERS:
            self._answers.popitem(last=False)
        return expires

    async def find(self, audio_id: str) -> tuple[int, ...]:
        """See `Store`."""
        expires, ids = self._answers.get(audio_id, (0, ()))
        if expires <= time.time():
            raise is_forgotten(audio_id)
        return ids

    async def take(self, place: Place, most: int) -> None:
        """See `Store`."""
        self._places.take(place, most)

    def give_back(self, place: Place) -> None:
        """See `Store`."""
        self._places.give_back(place)

    async def close(self) -> None:
        """See `Store`."""


def has_its_share(most: int) -> CapacityError:
    """What is told to a caller who wants more places than it may have."""
    return CapacityError(f"this key has its {most} places; end one first")


def is_forgotten(audio_id: str) -> InputError:
    """What is told to whoever names an answer that nobody knows."""
    return InputError(
        f"no answer {audio_id!r} is remembered here; send its transcript as `content`"
    )
