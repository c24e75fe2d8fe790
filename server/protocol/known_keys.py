"""Which keys a client's message may have: a wrong or an old name is an error, not silence."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from aqaa.server.protocol.errors import PARAM_LENGTH, ProtocolError
from aqaa.server.protocol.types import Json

# The beta's names, and what they are called now.
RENAMED = {
    "modalities": "output_modalities",
    "voice": "audio.output.voice",
    "speed": "audio.output.speed",
    "input_audio_format": "audio.input.format",
    "output_audio_format": "audio.output.format",
    "input_audio_transcription": "audio.input.transcription",
    "input_audio_noise_reduction": "audio.input.noise_reduction",
    "turn_detection": "audio.input.turn_detection",
    "max_response_output_tokens": "max_output_tokens",
}


def check_keys(given: Json, path: str, *models: type[BaseModel]) -> None:
    """Refuse keys of `given`, at `path` ("": the message), that are no field of any of `models`.

    At any depth. One that is null is not set, whatever it is called.

    Raises:
        ProtocolError: names the key, and what it is called now if the beta knew it, or where it
            belongs.
    """
    known = _known(models)
    for key, value in given.items():
        if value is None:
            continue
        here = f"{path}.{key}" if path else key
        inner = known.get(key)
        if inner is None:
            message = f"unknown parameter {here!r}{_hint(key, path, models)}"
            raise ProtocolError("unknown_parameter", message[:1024], here[:PARAM_LENGTH])
        if not inner:
            continue
        if isinstance(value, dict):
            check_keys(value, here, *inner)
        elif isinstance(value, list):
            for place, one in enumerate(value):
                if isinstance(one, dict):
                    check_keys(one, f"{here}.{place}", *inner)


@cache
def _known(models: tuple[type[BaseModel], ...]) -> dict[str, tuple[type[BaseModel], ...]]:
    """The keys that these models have together, and the models that each one's value may be."""
    known: dict[str, tuple[type[BaseModel], ...]] = {}
    for model in models:
        for key, field in model.model_fields.items():
            known[key] = (*known.get(key, ()), *_models_of(field.annotation))
    return known


def _hint(key: str, path: str, models: tuple[type[BaseModel], ...]) -> str:
    """What to say of a key that `models`, at `path`, do not have."""
    if path and key in RENAMED:
        return f": it is {path}.{RENAMED[key]} (the beta's names need `OpenAI-Beta: realtime=v1`)"
    for name, inner in _known(models).items():
        if key in _known(inner):
            return f": it is {path}.{name}.{key}" if path else f": it is {name}.{key}"
    return ""


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value of this annotation may be; a union has several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models_of(one)
