"""The names of the beta protocol, for clients that ask for it and only them.

They send the header `OpenAI-Beta: realtime=v1`, or, from a browser, which can send none, the
subprotocol `openai-beta.realtime-v1`.

Both directions are rewritten on the JSON objects at the edge; inside there is only GA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.known_keys import RENAMED
from aqaa.server.protocol.types import Json

BETA_SUBPROTOCOL = "openai-beta.realtime-v1"

_EVENTS = {
    "response.output_text.delta": "response.text.delta",
    "response.output_text.done": "response.text.done",
    "response.output_audio.delta": "response.audio.delta",
    "response.output_audio.done": "response.audio.done",
    "response.output_audio_transcript.delta": "response.audio_transcript.delta",
    "response.output_audio_transcript.done": "response.audio_transcript.done",
    "conversation.item.added": "conversation.item.created",
}
_DROPPED = frozenset({"conversation.item.done"})  # the beta had one event for an item
_CONTENT = {"output_text": "text", "output_audio": "audio"}
_CONTENT_IN = {"text": "output_text", "audio": "output_audio"}
_FORMATS: dict[str, Json] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}
_NO_USE = ("temperature", "client_secret")  # the beta's own, which GA has no more
_FORMAT_NAMES = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}


def is_beta(headers: Any, subprotocols: Sequence[str] = ()) -> bool:
    """Whether the client asked for the beta protocol."""
    return BETA_SUBPROTOCOL in subprotocols or "realtime=v1" in headers.get("openai-beta", "")


def to_ga(message: Json) -> Json:
    """A beta client's message in GA's words; what the beta did not know stays as it is.

    Raises:
        ProtocolError: a format of audio that there is not.
    """
    message = dict(message)
    for part in ("session", "response"):
        if isinstance(message.get(part), dict):
            message[part] = _renamed(message[part], part)
    if isinstance(given := message.get("response"), dict) and isinstance(given.get("input"), list):
        message["response"] = {
            **given,
            "input": [_content(item, _CONTENT_IN) for item in given["input"]],
        }
    if isinstance(message.get("item"), dict):
        message["item"] = _content(message["item"], _CONTENT_IN)
    return message


def from_ga(event: Json) -> Json | None:
    """A GA event in the beta's words; None for one that the beta did not have."""
    if event["type"] in _DROPPED:
        return None
    event = {**event, "type": _EVENTS.get(event["type"], event["type"])}
    if "session" in event:
        event["session"] = _session_from_ga(event["session"])
    if "response" in event:
        event["response"] = _response_from_ga(event["response"])
    if "item" in event:
        event["item"] = _content(event["item"], _CONTENT)
    if event["type"] == "error":
        event["error"] = _error_from_ga(event["error"])
    return event


def _renamed(given: Json, path: str) -> Json:
    """A session or a response in GA's words."""
    ga = {k: v for k, v in given.items() if k not in RENAMED and k not in _NO_USE}
    for key, name in RENAMED.items():
        if key not in given:
            continue
        *way, last = name.split(".")
        place = ga
        for step in way:
            inner = place.get(step)
            place[step] = dict(inner) if isinstance(inner, dict) else {}
            place = place[step]
        value = given[key]
        place[last] = _format(value, f"{path}.{key}") if last == "format" else value
    return ga


def _format(name: object, path: str) -> Json | None:
    if name is None:
        return None
    if not isinstance(name, str) or name not in _FORMATS:
        known = ", ".join(_FORMATS)
        raise ProtocolError("invalid_value", f"{path}: it is one of {known}", path)
    return _FORMATS[name]


def _error_from_ga(error: Json) -> Json:
    """The error with the name that the client gave to what is wrong."""
    param = error["param"] or ""
    for old, name in RENAMED.items():
        for part in ("session", "response"):
            new = f"{part}.{name}"
            if param == new or param.startswith(f"{new}."):
                known = f"{part}.{old}{param.removeprefix(new)}"
                message = error["message"].replace(param, known)
                return {**error, "param": known, "message": message}
    return error


def _session_from_ga(session: Json) -> Json:
    audio_in, audio_out = session["audio"]["input"], session["audio"]["output"]
    return {
        "id": session["id"],
        "object": session["object"],
        "model": session["model"],
        "expires_at": session["expires_at"],
        "modalities": _modalities(session["output_modalities"]),
        "instructions": session["instructions"],
        "voice": audio_out["voice"],
        "input_audio_format": _FORMAT_NAMES[audio_in["format"]["type"]],
        "output_audio_format": _FORMAT_NAMES[audio_out["format"]["type"]],
        "input_audio_transcription": audio_in["transcription"],
        "turn_detection": audio_in["turn_detection"],
        "tools": session["tools"],
        "tool_choice": session["tool_choice"],
        "max_response_output_tokens": session["max_output_tokens"],
    }


def _response_from_ga(response: Json) -> Json:
    output = response["audio"]["output"]
    beta = {k: v for k, v in response.items() if k not in ("audio", "output_modalities")}
    return {
        **beta,
        "modalities": _modalities(response["output_modalities"]),
        "voice": output["voice"],
        "output_audio_format": _FORMAT_NAMES[output["format"]["type"]],
        "output": [_content(item, _CONTENT) for item in response["output"]],
    }


def _modalities(modalities: list[str]) -> list[str]:
    return ["text", "audio"] if "audio" in modalities else ["text"]


def _content(item: Any, names: dict[str, str]) -> Any:
    """An answer with its content parts renamed; whatever is none stays as it is."""
    if not isinstance(item, dict) or not isinstance(item.get("content"), list):
        return item
    if item.get("role") != "assistant":
        return item  # a user's and the system's parts are called the same in both
    parts = [
        {**part, "type": names.get(str(part.get("type")), part.get("type"))}
        if isinstance(part, dict)
        else part
        for part in item["content"]
    ]
    return {**item, "content": parts}
