"""Functions that a client lets the model call, and answers by itself.

`demo()` has a timer and the clock, for whoever wants to see the model call one. `read_tools` takes
any others from a file, as a session declares them; there is nobody here to run those, so each call
of one is told that it worked, or what the file says under `output`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from aqaa.models.errors import InputError
from aqaa.server.protocol.client_events import (
    ClientEvent,
    ConversationItemCreate,
    ResponseCreate,
)
from aqaa.server.protocol.server_events import (
    ResponseDone,
    ResponseFunctionCallArgumentsDone,
    ServerEvent,
    SessionCreated,
    SessionUpdated,
)
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.tools import FunctionTool
from aqaa.server.protocol.types import FunctionCallOutput, Json

DONE = '{"ok":true}'
Run = Callable[[Json], str]  # arguments in, what the model is given back
UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True)
class MadeCall:
    """A call that the model made, and what it was given back."""

    name: str
    arguments: str
    output: str

    def __str__(self) -> str:
        """As one line."""
        return f"{self.name}({self.arguments}) -> {self.output}"


class Tools:
    """What is declared, and who runs it."""

    def __init__(
        self,
        functions: Mapping[str, Run],
        declared: list[FunctionTool],
        on_call: Callable[[MadeCall], None],
        on_note: Callable[[str], None],
    ) -> None:
        """A session's.

        Args:
            functions: by name.
            declared: as the session declares them.
            on_call: told of each call once it is answered.
            on_note: told of anything else that the user should know.
        """
        self.declared = [tool.model_dump() for tool in declared]
        self._functions = functions
        self._on_call = on_call
        self._on_note = on_note
        self._calling: set[str] = set()  # responses that called something and are not over

    def replies(self, event: ServerEvent) -> list[ClientEvent]:
        """What is to be sent for `event`.

        It is a call's output, or, behind a response of calls, the wish that the model go on.
        """
        match event:
            case SessionUpdated(session=Session(tools=[])):
                self._on_note("this model calls no functions")
            case SessionCreated():
                self._calling.clear()
            case ResponseFunctionCallArgumentsDone():
                self._calling.add(event.response_id)
                output = self._functions[event.name](json.loads(event.arguments))
                self._on_call(MadeCall(event.name, event.arguments, output))
                item = FunctionCallOutput(
                    type="function_call_output", call_id=event.call_id, output=output
                )
                return [ConversationItemCreate(item=item)]
            case ResponseDone(response=response) if response.id in self._calling:
                self._calling.discard(response.id)
                return [ResponseCreate()] if response.status == "completed" else []
        return []


def demo(on_call: Callable[[MadeCall], None], on_note: Callable[[str], None]) -> Tools:
    """A timer, which says when it is over, and the clock. For a running event loop."""

    def set_timer(arguments: Json) -> str:
        seconds = sum(UNITS[unit] * int(arguments.get(unit, 0)) for unit in UNITS)
        asyncio.get_running_loop().call_later(seconds, on_note, "the timer is over")
        return DONE

    def get_time(arguments: Json) -> str:
        return json.dumps({"time": f"{datetime.now():%H:%M}"}, separators=(",", ":"))

    duration = {unit: {"type": "integer"} for unit in UNITS}
    declared = [
        _declared("set_timer", "Start a timer.", duration),
        _declared("get_time", "What time it is now.", {}),
    ]
    return Tools({"set_timer": set_timer, "get_time": get_time}, declared, on_call, on_note)


class _Listed(FunctionTool):
    output: JsonValue = Field(default_factory=lambda: json.loads(DONE))


_LIST = TypeAdapter(list[_Listed])


def read_tools(
    path: Path, on_call: Callable[[MadeCall], None], on_note: Callable[[str], None]
) -> Tools:
    """The functions in the JSON file `path`: a list of what a session declares.

    Raises:
        InputError: there is no such file, or it is no such list; the message says where.
    """
    try:
        listed = _LIST.validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{path} is no list of functions ({where}: {first['msg']}): give "
            '[{"type": "function", "name": ..., "parameters": {...}}]'
        ) from error

    def gives(output: JsonValue) -> Run:
        text = output if isinstance(output, str) else json.dumps(output, separators=(",", ":"))
        return lambda arguments: text

    declared = [FunctionTool(**tool.model_dump(exclude={"output"})) for tool in listed]
    return Tools({tool.name: gives(tool.output) for tool in listed}, declared, on_call, on_note)


def _declared(name: str, description: str, properties: Json) -> FunctionTool:
    parameters = {"type": "object", "properties": properties, "additionalProperties": False}
    return FunctionTool(name=name, description=description, parameters=parameters)
