"""What openai-python makes of the events that this server sends, when it is asked to be strict.

Every live session of the tests, and every server in a test's own process, has its events read so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from conformance import members_of, tag_of
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel, ValidationError

from aqaa.server.gateway.outlet import OutboxOutlet
from aqaa.server.protocol.server_events import ServerEvent
from aqaa.server.protocol.types import Json

MODELS = {tag_of(one): one for one in members_of(RealtimeServerEvent)}
# Extensions, for those who ask for them.
OURS = ("aqaa.latency", "aqaa.interruption")
OUR_FIELDS = ("session.aqaa", "audio_start_ms")
# OpenAI's service sends them; openai-python has them in the session that a secret is made for.
UNTYPED = ("session.id", "session.object", "session.expires_at")


def complaints(event: Json) -> list[str]:
    """What is wrong with an event: fields that are missing, mistyped or unknown."""
    kind = event["type"]
    if kind in OURS:
        return []
    if kind not in MODELS:
        return [f"{kind}: there is no such event"]
    try:
        read = MODELS[kind].model_validate(_at_openais_rate(event))
    except ValidationError as error:
        return [f"{kind}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    known = {*OUR_FIELDS, *UNTYPED}
    return [f"{kind}: {path}: unknown" for path in _unknown(read, "") if path not in known]


def _at_openais_rate(value: Any) -> Any:
    """The same with all PCM at 24 kHz, the only rate that OpenAI has."""
    match value:
        case {"type": "audio/pcm", "rate": int()}:
            return {**value, "rate": 24_000}
        case dict():
            return {key: _at_openais_rate(one) for key, one in value.items()}
        case list():
            return [_at_openais_rate(one) for one in value]
        case _:
            return value


def _unknown(value: Any, path: str) -> Iterator[str]:
    match value:
        case BaseModel():
            others = value.model_extra or {}
            yield from (f"{path}{name}" for name in others)
            for name in value.model_fields_set - others.keys():
                yield from _unknown(getattr(value, name), f"{path}{name}.")
        case list():
            for one in value:
                yield from _unknown(one, path)


class StrictReader:
    """Reads all events of a test; `check` fails it for what was wrong with any."""

    def __init__(self) -> None:
        self._wrong: dict[str, None] = {}

    def read(self, event: ServerEvent) -> None:
        """One event, as it goes over the wire."""
        self._wrong |= dict.fromkeys(complaints(event.model_dump(mode="json")))

    def check(self) -> None:
        """All of them were as openai-python has them."""
        assert not self._wrong, "\n".join(self._wrong)


@contextmanager
def read_strictly() -> Iterator[None]:
    """All that servers in this process send meanwhile is read, also what the beta is told."""
    reader, send = StrictReader(), OutboxOutlet.send

    def sent(self: OutboxOutlet, event: ServerEvent, left: Any = None) -> None:
        reader.read(event)
        send(self, event, left)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OutboxOutlet, "send", sent)
        yield
    reader.check()
