"""docs/conformance.md: each event and field of OpenAI's Realtime API, and what is done with it.

The events and fields are those of openai-python's types; the verdicts are `conformance_verdicts`.

`conformance_document` writes the tables.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import typing_extensions
from conformance_verdicts import (
    CLIENT,
    COMPANIONS,
    NEEDED,
    SAMPLES,
    Verdict,
)
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from pydantic import BaseModel

from aqaa.server.protocol import server_events
from aqaa.server.protocol.types import Json

Model = type[BaseModel]
Step = str | int  # a key, or a place in a list


@dataclass(frozen=True)
class Field:
    """A field of a client event, or one form of it.

    Attributes:
        event: the event's type.
        path: how the document calls it: `session.audio.input.format(audio/pcmu)`.
        steps: where it is in the event.
        message: the smallest event that has it, with this value.
        sample: a value that it may have.
    """

    event: str
    path: str
    steps: tuple[Step, ...]
    message: Callable[[Any], Json]
    sample: Any


def client_fields() -> Iterator[Field]:
    """All fields of all events that OpenAI's clients send."""
    for event in members_of(RealtimeClientEvent):
        kind = tag_of(event)

        def message(value: Json, kind: str = kind) -> Json:
            return {"type": kind, **value}

        yield from _fields_of(event, kind, "", (), message)


def _fields_of(
    model: Model, event: str, path: str, steps: tuple[Step, ...], outer: Callable[[Any], Json]
) -> Iterator[Field]:
    needed = _smallest(model, event, path)
    for name, info in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        if name in ("type", "role") and len(_all_literals(info.annotation)) == 1:
            continue  # it tells which form the object has
        companions = next((v for end, v in COMPANIONS.items() if here.endswith(end)), {})

        def message(value: Any, name: str = name, more: Json = companions) -> Json:
            return outer({**needed, **more, name: value})

        yield from _forms(info.annotation, event, here, (*steps, name), message)


def _forms(
    annotation: Any, event: str, path: str, steps: tuple[Step, ...], outer: Callable[[Any], Json]
) -> Iterator[Field]:
    """The forms of a field: its one value, or each member of a union."""
    members = [one for one in members_of(annotation) if one is not type(None)]
    models = [one for one in members if _is_model(one)]
    lists = [one for one in members if get_origin(one) is list and models_in(one)]
    if len(members) > len(models) + len(lists):
        yield Field(event, path, steps, outer, _sample(annotation, event, path))
    for model in models:
        inner = f"{path}({tag_of(model)})" if len(models) > 1 else path
        fields = list(_fields_of(model, event, inner, steps, outer))
        if len(models) > 1 or not fields:
            yield Field(event, inner, steps, outer, _smallest(model, event, inner))
        yield from fields
    for one in lists:
        (element,) = get_args(one)

        def listed(value: Any) -> Json:
            return outer([value])

        yield from _forms(element, event, f"{path}[]", (*steps, 0), listed)


def _smallest(model: Model, event: str, path: str) -> Json:
    """The object with what it must have."""
    smallest = dict(next((v for end, v in NEEDED.items() if path.endswith(end)), {}))
    for name, info in model.model_fields.items():
        here = f"{path}.{name}" if path else name
        literals = _all_literals(info.annotation)
        if name == "type" and len(literals) == 1:
            smallest[name] = literals[0]
        elif info.is_required():
            smallest[name] = _sample(info.annotation, event, here)
    return smallest


def _sample(annotation: Any, event: str, path: str) -> Any:
    for known in (f"{event} {path}", path, path.rpartition(".")[2]):
        if known in SAMPLES:
            return SAMPLES[known]
    member = next(one for one in members_of(annotation) if one is not type(None))
    if _is_model(member):
        return _smallest(member, event, path)
    if get_origin(member) is Literal:
        return next((v for v in reversed(get_args(member)) if v != "auto"), "auto")  # no default
    if get_origin(member) is list:
        return [_sample(get_args(member)[0], event, f"{path}[]")]
    if member is str:
        return "x"
    if member is bool:
        return False
    raise LookupError(f"SAMPLES has no value for {event} {path}, which is {member}")


def tag_of(model: Model) -> str:
    """What tells this form of an object from others: its type, and its role if it has one."""
    tags = []
    for name in ("type", "role"):
        if name in model.model_fields:
            literals = _all_literals(model.model_fields[name].annotation)
            tags += literals if len(literals) == 1 else []
    return " ".join(tags) or model.__name__


def _all_literals(annotation: Any) -> list[Any]:
    """The values of an annotation that is a literal, or a union of such."""
    literals = [one for one in members_of(annotation) if get_origin(one) is Literal]
    return [value for one in literals for value in get_args(one)]


def members_of(annotation: Any) -> Iterator[Any]:
    """The members of a union, or what is none; required or not, and whatever is noted of it."""
    match get_origin(annotation):
        case typing.Annotated | typing_extensions.Required | typing_extensions.NotRequired:
            yield from members_of(get_args(annotation)[0])
        case typing.Union | types.UnionType:
            for one in get_args(annotation):
                yield from members_of(one)
        case _:
            yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def models_in(annotation: Any) -> list[Model]:
    """The models that a value, or what it lists, may be."""
    found: list[Model] = []
    for one in members_of(annotation):
        if _is_model(one):
            found.append(one)
        elif get_origin(one) in (list, tuple):
            found += models_in(get_args(one)[0])
    return found


# --- verdicts -------------------------------------------------------------------------------------


def verdict_key(field: Field) -> str:
    """The key of the verdict on `field`: the longest one that names it or what it is in.

    Raises:
        LookupError: there is none: openai-python has a field that nobody has looked at.
    """
    name = f"{field.event} {field.path}"
    keys = [key for key in CLIENT if _covers(key.removesuffix("*"), name)]
    if not keys:
        raise LookupError(f"no verdict on {name}: add one to conformance_verdicts.py")
    return max(keys, key=len)


def _covers(key: str, name: str) -> bool:
    return name == key or (name.startswith(key) and name[len(key)] in " .[(")


def judged() -> list[tuple[Field, str, Verdict]]:
    """Every field, how the document names it, and the verdict on it.

    A verdict whose key ends with a star is one line for all that it covers.
    """
    found = []
    for field in client_fields():
        key = verdict_key(field)
        name = key.removesuffix("*") if key.endswith("*") else f"{field.event} {field.path}"
        found.append((field, name, CLIENT[key]))
    return found


# --- what the server sends ---------------------------------------------------------------------


def ours_by_type() -> dict[str, Model]:
    """The events that this server sends."""
    return {tag_of(one): one for one in members_of(server_events.ServerEvent)}


def server_types() -> set[str]:
    """The types of the events that OpenAI's service sends."""
    return {tag_of(one) for one in members_of(RealtimeServerEvent)}
