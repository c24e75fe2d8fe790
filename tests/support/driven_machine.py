"""A session machine with a driver that has no models: tests play the part of ears and voice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

from realtime_grammar import Reader

from aqaa.server.protocol import client_events as client
from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.configure import Voices
from aqaa.server.protocol.errors import ProtocolError
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.limits import Limits
from aqaa.server.protocol.machine import SessionMachine
from aqaa.server.protocol.session_types import Session
from aqaa.server.protocol.types import Json

VOICES = Voices(names=("joe", "amy"), default="joe", aliases={"alloy": "joe"})
HEARD_MS = 100  # what this driver says was heard of an answer that is cut


def counter() -> Callable[[str], str]:
    numbers = itertools.count()
    return lambda prefix: f"{prefix}_{next(numbers)}"


class Driven:
    """Keeps what the machine said and asked for; checks that the events are legal."""

    def __init__(
        self,
        items: int = 512,
        limits: Limits | None = None,
        *,
        transcribes: bool = True,
        calls: bool = True,
        type: Literal["realtime", "transcription"] = "realtime",
    ) -> None:
        session = Session(id="sess_1", model="nano", type=type)
        self.waiting: set[str] = set()  # items of which sound still waits to be sent
        self.machine = SessionMachine(
            session,
            VOICES,
            lambda item_id: HEARD_MS,
            lambda item_id: item_id in self.waiting,
            transcribes=transcribes,
            calls=calls,
            limits=limits or Limits(items=items),
            make_id=counter(),
        )
        self.kept_sound: str | None = "AAAA"  # of every item, as this driver has it
        self.reader = Reader()
        self.runs: list[fx.StartRun] = []
        self.take(self.machine.open())

    def take(self, outputs: list[Output]) -> list[Output]:
        """Read the events and do the effects, each when it comes; returns the outputs, with those
        of what was done."""
        said: list[Output] = []
        for output in outputs:
            said.append(output)
            if isinstance(output, server.FromServer):
                self.reader.read(output)
            else:
                said += self.do(output)
        return said

    def do(self, effect: fx.Effect) -> list[Output]:
        """Do what the machine asks for; returns what it says to that."""
        match effect:
            case fx.StartRun():
                self.runs.append(effect)
            case fx.FetchSound():
                return self.happen(fx.SoundFetched(effect, self.kept_sound))
        return []

    def send(self, message: Json) -> list[Output]:
        try:
            event = client.parse_client_event(message)
        except ProtocolError as error:
            return self.take(self.machine.refuse(error))
        return self.take(self.machine.on_client(event))

    def happen(self, given: fx.Input) -> list[Output]:
        return self.take(self.machine.on_input(given))

    def item(self, pick: int) -> str:
        """Some item of the conversation, or the name of none."""
        return self.reader.order[pick % len(self.reader.order)] if self.reader.order else "none"

    def response(self, pick: int) -> str:
        """Some response, past or present, or the name of none."""
        return self.runs[pick % len(self.runs)].response_id if self.runs else "none"


class Caller(Driven):
    """A client that runs what is called and sends what it gave back; a model that calls."""

    def __init__(self, items: int = 512) -> None:
        self.running: list[str] = []
        self.unanswered: list[str] = []  # calls whose output is due
        self.told: list[str] = []
        super().__init__(items)

    def take(self, outputs: list[Output]) -> list[Output]:
        for output in super().take(outputs):
            match output:
                case fx.StartRun():
                    self.running.append(output.response_id)
                case fx.StopRun():
                    self.running.remove(output.response_id)
                case server.ResponseFunctionCallArgumentsDone():
                    assert output.call_id not in self.told, "a call was told twice"
                    self.told.append(output.call_id)
                    self.unanswered.append(output.call_id)
        return outputs

    def progress(self, make: Callable[[str], fx.Input]) -> None:
        if self.running:
            self.happen(make(self.running[-1]))

    def end(self, status: Literal["completed", "failed"] = "completed") -> None:
        if self.running:
            self.happen(fx.RunEnded(self.running.pop(), status))

    def give_back(self) -> None:
        if self.unanswered:
            item = {"type": "function_call_output", "call_id": self.unanswered.pop(), "output": ""}
            self.send({"type": "conversation.item.create", "item": item})


def types(outputs: list[Output]) -> list[str]:
    """The types of the wire events among the outputs."""
    return [output.type for output in outputs if isinstance(output, server.FromServer)]


def error_codes(outputs: list[Output]) -> list[str | None]:
    """The codes of the errors among the outputs."""
    return [output.error.code for output in outputs if isinstance(output, server.ErrorEvent)]
