"""How a session's settings change: partial updates, and which voice is meant by a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from aqaa.server.protocol.errors import ProtocolError, invalid
from aqaa.server.protocol.known_keys import check_keys
from aqaa.server.protocol.session_types import Session, merge
from aqaa.server.protocol.tools import STRANGER, names_a_stranger
from aqaa.server.protocol.types import Json

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


def updated(
    session: Session,
    patch: Json,
    voices: Voices,
    *,
    transcribes: bool = False,
    calls: bool = False,
) -> Session:
    """The session with a client's partial one laid over it.

    `transcribes`: whether the user's words can be known; `calls`: whether functions can be called.

    Raises:
        ProtocolError: a key that means nothing, or a value that cannot be; names its path.
    """
    check_keys(patch, "session", Session)
    patch = {key: value for key, value in patch.items() if key not in SERVERS_OWN}
    if patch.get("type") not in (None, session.type):
        raise ProtocolError(
            "invalid_value", f"the session is of type {session.type!r} to its end", "session.type"
        )
    merged = merge(session.model_dump(), patch)
    try:
        new = Session.model_validate(merged)
    except ValidationError as error:
        raise invalid(error, merged, "session") from None
    served = as_served(new, voices, transcribes=transcribes, calls=calls)
    if not names_a_stranger(served.tool_choice, served.tools):
        return served
    if patch.get("tool_choice") is not None:
        raise ProtocolError("invalid_value", STRANGER, "session.tool_choice")
    return served.model_copy(update={"tool_choice": "auto"})  # its function has left


def as_served(session: Session, voices: Voices, *, transcribes: bool, calls: bool) -> Session:
    """The session as it is served: the voice by its own name, no words and no tools where there
    can be none.

    Raises:
        ProtocolError: there is no such voice.
    """
    spoken, heard = session.audio.output, session.audio.input
    voice = voices.find(spoken.voice, "session.audio.output.voice")
    audio = session.audio.model_copy(
        update={
            "input": heard if transcribes else heard.model_copy(update={"transcription": None}),
            "output": spoken.model_copy(update={"voice": voice}),
        }
    )
    tools = {} if calls else {"tools": [], "tool_choice": "auto"}
    return session.model_copy(update={"audio": audio, **tools})
