"""A session machine, led through all that a client may send: which fields its events had."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterator
from typing import Any

from conformance import Field, Model, client_fields, members_of, models_in, tag_of
from conformance_verdicts import ANSWER, RUNNING, SAMPLES, USER_ITEM
from driven_machine import Driven
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.types import Json

EVENT: TypeAdapter[server.ServerEvent] = TypeAdapter(server.ServerEvent)
TOOL = {"type": "function", "name": "f"}
CALL = {"type": "function_call", "call_id": SAMPLES["call_id"], "name": "f", "arguments": "{}"}
SECOND = base64.b64encode(bytes(48_000)).decode()
LOGPROBS = "item.input_audio_transcription.logprobs"


def on_the_wire(outputs: list[Output]) -> list[Json]:
    """The events among the outputs, as they are sent."""
    events = [one for one in outputs if isinstance(one, server.FromServer)]
    return [EVENT.dump_python(one, mode="json") for one in events]


def a_session_for(field: Field) -> tuple[Driven, dict[str, str]]:
    """A session in which the field's event makes sense, and the ids that it has."""
    if field.path.startswith("session(transcription)"):
        return Driven(type="transcription"), {}
    driven = Driven()
    text = [{"type": "input_text", "text": "x"}]
    item = {"type": "message", "role": "user", "id": USER_ITEM, "content": text}
    driven.send({"type": "conversation.item.create", "item": item})
    driven.send({"type": "conversation.item.create", "item": CALL})
    driven.send({"type": "session.update", "session": {"tools": [TOOL]}})
    ids = {}
    if field.event in ("conversation.item.truncate", "response.cancel"):
        driven.send({"type": "response.create"})
        run = driven.runs[-1]
        driven.happen(fx.RunSound(run.response_id, bytes(9600), 5))
        ids = {ANSWER: run.item_id, RUNNING: run.response_id}
    if field.event == "input_audio_buffer.commit":
        sound = base64.b64encode(bytes(9600)).decode()
        driven.send({"type": "input_audio_buffer.append", "audio": sound})
    return driven, ids


def with_its_call(message: Json) -> Json:
    """The message; an output among its input has its call there, too."""
    given = message.get("response", {}).get("input")
    if not given or given[0].get("type") != "function_call_output":
        return message
    return {**message, "response": {**message["response"], "input": [CALL, *given]}}


def named(message: Any, ids: dict[str, str]) -> Any:
    match message:
        case dict():
            return {key: named(value, ids) for key, value in message.items()}
        case str():
            return ids.get(message, message)
        case _:
            return message


def told(field: Field) -> list[Json]:
    """What is said to a client that sends this field."""
    driven, ids = a_session_for(field)
    return on_the_wire(driven.send(named(with_its_call(field.message(field.sample)), ids)))


# --- what is sent ---------------------------------------------------------------------------------


def _conversation() -> Iterator[Json]:
    """Turns, answers, calls and words: what no single event of a client brings about."""
    driven = Driven()
    said: list[Output] = [*driven.machine.open()]
    audio = {"input": {"transcription": {"model": "x"}}}
    said += driven.send(
        {"type": "session.update", "session": {"audio": audio, "include": [LOGPROBS]}}
    )
    said += driven.send({"type": "session.update", "session": {"tools": [TOOL]}})
    pieces = (("what", -0.1), (" is", -0.2))
    ends: tuple[fx.RunEnded | None, ...] = (
        fx.RunEnded("", "completed"),
        fx.RunEnded("", "max_output_tokens"),
        fx.RunEnded("", "failed", "engine_died"),
        None,  # interrupted
    )
    for end in ends:
        said += driven.send({"type": "input_audio_buffer.append", "audio": SECOND})
        said += driven.happen(fx.SpeechStarted(100))
        said += driven.happen(fx.SpeechStopped(900, (7,)))
        run = driven.runs[-1]
        turn = run.items[-1].id or ""
        said += driven.happen(fx.UserWords(turn, pieces))
        said += driven.happen(
            fx.UserWordsFailed(turn)
            if end is None
            else fx.UserWordsEnded(turn, "what is", pieces, 1)
        )
        said += driven.happen(fx.RunStarted(run.response_id, 10, 20, 3, 4))
        said += driven.happen(fx.RunText(run.response_id, "Yes.", 1, 0))
        said += driven.happen(fx.RunSound(run.response_id, bytes(9600), 5))
        if end is not None:
            said += driven.happen(fx.RunCall(run.response_id, "f", "{}", 6))
            said += driven.happen(fx.RunEnded(run.response_id, end.status, end.code))
    said += driven.happen(fx.SpeechStarted(1500))
    said += driven.happen(fx.SpeechStopped(1900, (7,)))
    for modality in ("text", "audio"):
        run = driven.runs[-1]
        said += driven.happen(fx.RunText(run.response_id, "Yes.", 1, 0))
        said += driven.happen(fx.RunEnded(run.response_id, "completed"))
        said += driven.send(
            {"type": "response.create", "response": {"output_modalities": [modality]}}
        )
    said += driven.send({"type": "response.cancel"})
    said += driven.send({"type": "response.cancel", "event_id": "mine"})
    detection = {"type": "server_vad", "idle_timeout_ms": 6000}
    audio = {"input": {"turn_detection": detection}}
    said += driven.send({"type": "session.update", "session": {"audio": audio}})
    said += driven.happen(fx.IdleTimedOut(2000, 8000, (7,)))
    for item_id in driven.reader.order[:2]:  # a turn and its answer
        said += driven.send({"type": "conversation.item.retrieve", "item_id": item_id})
    yield from on_the_wire(said)


def _seen(form: Model, value: Json, path: str, seen: dict[str, bool]) -> None:
    for name, info in form.model_fields.items():
        if name not in value:
            continue
        here = f"{path}.{name}" if path else name
        seen[here] = seen.get(here, False) or value[name] is not None
        forms = models_in(info.annotation)
        for one in value[name] if isinstance(value[name], list) else [value[name]]:
            if not isinstance(one, dict) or not forms:
                continue
            of = next((m for m in forms if _is_of(one, m)), None)
            if of is not None:
                inner = f"{here}({tag_of(of)})" if len(forms) > 1 else here
                seen[inner] = True
                _seen(of, one, inner, seen)


def _is_of(value: Json, form: Model) -> bool:
    tags = tag_of(form)
    if tags == form.__name__:
        return True
    return tags.split() == [value[k] for k in ("type", "role") if k in value][: len(tags.split())]


@functools.cache
def fields_seen() -> dict[str, dict[str, bool]]:
    """By event: the fields that were seen, and whether they ever had a value but null."""
    models = {tag_of(one): one for one in members_of(RealtimeServerEvent)}
    seen: dict[str, dict[str, bool]] = {}
    events = [*_conversation(), *(event for field in client_fields() for event in told(field))]
    for event in events:
        if (form := models.get(event["type"])) is not None:
            _seen(form, event, "", seen.setdefault(event["type"], {}))
    return seen
