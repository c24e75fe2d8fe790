"""How a session's settings change: partial updates, and which voice is meant by a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from aqaa.server.protocol.errors import ProtocolError, invalid
from aqaa.server.protocol.known_keys import check_keys
from aqaa.server.protocol.types import Json, Session, merge

SERVERS_OWN = ("id", "object", "model", "expires_at")  # keys that an update cannot change


@dataclass(frozen=True)
class Voices:
    """The voices there are, the one that is used when none is named, and other names for them."""

    names: tuple[str, ...]
    default: str
    aliases: Mapping[str, str] = field(default_factory=dict)

    def find(self, name: str, param: str) -> str:
        """The voice of this name or alias; the default for an empty name.

        Raises:
            ProtocolError: there is none; the message lists those that there are.
        """
        if not name:
            return self.default
        voice = name if name in self.names else self.aliases.get(name)
        if voice is None:
            known = ", ".join(self.names)
            raise ProtocolError("invalid_value", f"no voice {name!r}; there is {known}", param)
        return voice


def updated(session: Session, patch: Json, voices: Voices) -> Session:
    """The session with a client's partial one laid over it.

    Raises:
        ProtocolError: a key that means nothing, or a value that cannot be; names its path.
    """
    check_keys(patch, "session")
    patch = {key: value for key, value in patch.items() if key not in SERVERS_OWN}
    if patch.get("type", "realtime") != "realtime":
        raise ProtocolError(
            "invalid_value", 'only sessions of type "realtime" exist here', "session.type"
        )
    try:
        new = Session.model_validate(merge(session.model_dump(), patch))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise invalid(first["msg"], first["type"], ("session", *first["loc"]), None) from None
    return with_voice(new, voices)


def with_voice(session: Session, voices: Voices) -> Session:
    """The session with the voice's own name in place of an alias or nothing.

    Raises:
        ProtocolError: there is no such voice.
    """
    output = session.audio.output
    voice = voices.find(output.voice, "session.audio.output.voice")
    audio = session.audio.model_copy(update={"output": output.model_copy(update={"voice": voice})})
    return session.model_copy(update={"audio": audio})
