"""Function calls on the wire: their items, their order, and what a client may do with them."""

from __future__ import annotations

import pytest
from driven_machine import Driven, error_codes, types

from aqaa.server.protocol import effects as fx
from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.beta import from_ga, to_ga
from aqaa.server.protocol.items import Output
from aqaa.server.protocol.types import FunctionCall, Json, Message

TIMER = {"type": "function", "name": "set_timer", "parameters": {"type": "object"}}
LIGHT = {"type": "function", "name": "set_light"}
CALL_BLOCK = [
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
]


def declared(**session: object) -> Driven:
    driven = Driven()
    settings = {"type": "realtime", "tools": [TIMER, LIGHT], **session}
    driven.send({"type": "session.update", "session": settings})
    driven.send(user("Five minutes, please."))
    return driven


def user(text: str) -> Json:
    content = [{"type": "input_text", "text": text}]
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": content},
    }


def output_of(call_id: str, output: str = "ok") -> Json:
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    return {"type": "conversation.item.create", "item": item}


def ask(driven: Driven, **response: object) -> str:
    driven.send({"type": "response.create", "response": response})
    return driven.runs[-1].response_id


def call(driven: Driven, response: str, arguments: str = '{"minutes":5}') -> list[Output]:
    return driven.happen(fx.RunCall(response, "set_timer", arguments, tokens=9))


def done(outputs: list[Output]) -> server.ResponseDone:
    return next(one for one in outputs if isinstance(one, server.ResponseDone))


def call_id_of(outputs: list[Output]) -> str:
    return next(
        one.call_id for one in outputs if isinstance(one, server.ResponseFunctionCallArgumentsDone)
    )


def test_a_call_is_an_item_of_its_own() -> None:
    driven = declared()
    response = ask(driven)
    seen = call(driven, response)
    assert types(seen) == CALL_BLOCK
    added, told = seen[0], seen[3]
    assert isinstance(added, server.ResponseOutputItemAdded)
    assert isinstance(added.item, FunctionCall)
    assert (added.item.status, added.item.arguments, added.output_index) == ("in_progress", "", 0)
    assert isinstance(told, server.ResponseFunctionCallArgumentsDone)
    assert (told.name, told.arguments) == ("set_timer", '{"minutes":5}')
    assert len(told.call_id) <= 32
    over = done(driven.happen(fx.RunEnded(response, "completed"))).response
    assert [item.type for item in over.output] == ["function_call"]
    assert over.usage is not None
    assert over.usage.output_token_details.text_tokens == 9
    assert driven.reader.order[-1] == added.item.id


def test_what_is_said_before_a_call_is_the_first_item() -> None:
    driven = declared()
    response = ask(driven)
    driven.happen(fx.RunText(response, "One moment.", 3, 0))
    driven.happen(fx.RunSound(response, bytes(4800), 5))
    seen = call(driven, response)
    assert types(seen)[-6:] == CALL_BLOCK
    assert types(seen)[:3] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
    ]
    assert isinstance(seen[-6], server.ResponseOutputItemAdded)
    assert seen[-6].output_index == 1
    over = done(driven.happen(fx.RunEnded(response, "completed"))).response
    assert [(item.type, item.status) for item in over.output] == [
        ("message", "completed"), ("function_call", "completed"),
    ]  # fmt: skip


def test_parallel_calls_follow_one_another() -> None:
    driven = declared()
    response = ask(driven)
    first, second = call(driven, response), call(driven, response, '{"minutes":7}')
    assert types(second) == CALL_BLOCK
    assert isinstance(second[0], server.ResponseOutputItemAdded)
    assert isinstance(second[1], server.ConversationItemAdded)
    assert isinstance(first[0], server.ResponseOutputItemAdded)
    assert second[0].output_index == 1
    assert second[1].previous_item_id == first[0].item.id
    assert call_id_of(first) != call_id_of(second)


def test_calls_out_of_band_enter_no_conversation() -> None:
    driven = declared()
    response = ask(driven, conversation="none")
    before = list(driven.reader.order)
    assert types(call(driven, response)) == [
        kind for kind in CALL_BLOCK if not kind.startswith("conversation")
    ]
    over = done(driven.happen(fx.RunEnded(response, "completed"))).response
    assert [item.type for item in over.output] == ["function_call"]
    assert driven.reader.order == before


def test_an_output_is_taken_while_the_calling_answer_goes_on() -> None:
    driven = declared()
    response = ask(driven)
    call_id = call_id_of(call(driven, response))
    seen = driven.send(output_of(call_id))
    assert types(seen) == ["conversation.item.added", "conversation.item.done"]
    call(driven, response, '{"minutes":7}')
    driven.happen(fx.RunEnded(response, "completed"))
    ask(driven)
    kinds = [item.type for item in driven.runs[-1].items]
    assert kinds == ["message", "function_call", "function_call", "function_call_output"]


def test_the_output_of_no_call_is_refused() -> None:
    driven = declared()
    seen = driven.send(output_of("call_nobody"))
    assert error_codes(seen) == ["invalid_tool_call_id"]
    inline = {"input": [{"type": "function_call_output", "call_id": "x", "output": ""}]}
    seen = driven.send({"type": "response.create", "response": inline})
    assert error_codes(seen) == ["invalid_tool_call_id"]


def test_calls_of_another_conversation_can_be_told() -> None:
    driven = declared()
    past = [
        {"type": "function_call", "call_id": "c1", "name": "set_timer", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": ""},
    ]
    for item in past:
        seen = driven.send({"type": "conversation.item.create", "item": item})
        assert error_codes(seen) == []
    seen = driven.send({"type": "response.create", "response": {"input": past}})
    assert error_codes(seen) == []
    assert [item.type for item in driven.runs[-1].items] == [one["type"] for one in past]


def test_an_interrupted_answer_keeps_what_it_called() -> None:
    driven = declared()
    response = ask(driven)
    call_id = call_id_of(call(driven, response))
    seen = driven.happen(fx.SpeechStarted(100))
    over = done(seen).response
    assert (over.status, [item.status for item in over.output]) == ("cancelled", ["completed"])
    assert types(call(driven, response)) == []  # it is over: nothing more of it is called
    assert error_codes(driven.send(output_of(call_id))) == []


def test_an_answer_that_is_still_heard_is_cut_behind_its_call() -> None:
    driven = declared()
    response = ask(driven)
    driven.happen(fx.RunText(response, "One moment.", 3, 0))
    driven.happen(fx.RunSound(response, bytes(48_000), 5))
    call_id = call_id_of(call(driven, response))
    driven.happen(fx.RunEnded(response, "completed"))
    driven.send(output_of(call_id))
    cuts = [one for one in driven.happen(fx.SpeechStarted(100)) if isinstance(one, fx.CutItem)]
    assert [one.item_id for one in cuts] == [driven.runs[-1].item_id]


def test_a_failed_call_fails_its_answer() -> None:
    driven = declared()
    response = ask(driven)
    over = done(driven.happen(fx.RunEnded(response, "failed", "invalid_tool_call"))).response
    assert over.output == []
    assert over.status_details is not None
    assert over.status_details.error is not None
    assert over.status_details.error.code == "invalid_tool_call"
    assert "nothing was called" in over.status_details.error.message


def test_an_answer_may_have_tools_of_its_own() -> None:
    driven = declared()
    ask(driven)
    assert [tool.name for tool in driven.runs[-1].tools] == ["set_timer", "set_light"]
    assert driven.runs[-1].tool_choice == "auto"
    driven.send({"type": "response.cancel"})
    ask(driven, tools=[LIGHT], tool_choice="required")
    run = driven.runs[-1]
    assert ([tool.name for tool in run.tools], run.tool_choice) == (["set_light"], "required")
    assert len(driven.machine.session.tools) == 2


def test_whether_calls_may_be_parallel_is_the_answers_or_the_sessions() -> None:
    driven = declared()
    ask(driven)
    assert driven.runs[-1].parallel_tool_calls
    driven.send({"type": "response.cancel"})
    ask(driven, parallel_tool_calls=False)
    assert not driven.runs[-1].parallel_tool_calls
    driven = declared(parallel_tool_calls=False)
    ask(driven)
    assert not driven.runs[-1].parallel_tool_calls


@pytest.mark.parametrize(
    ("response", "param"),
    [
        ({"tool_choice": {"type": "function", "name": "fly"}}, "response.tool_choice"),
        ({"tool_choice": "always"}, "response.tool_choice"),
        ({"tools": [{"type": "function", "name": "no spaces"}]}, "response.tools.0.name"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "response.tools.0.type"),
    ],
)
def test_tools_that_cannot_be_are_refused(response: Json, param: str) -> None:
    driven = declared()
    seen = driven.send({"type": "response.create", "response": response})
    refused = next(one for one in seen if isinstance(one, server.ErrorEvent))
    assert (refused.error.code, refused.error.param) == ("invalid_value", param)


def test_a_session_shows_its_tools_as_they_were_declared() -> None:
    driven = declared(tool_choice={"type": "function", "name": "set_timer"})
    shown = driven.machine.session.model_dump(mode="json")
    assert shown["tools"] == [TIMER, LIGHT]
    assert shown["tool_choice"] == {"type": "function", "name": "set_timer"}
    driven.send({"type": "session.update", "session": {"tool_choice": "none"}})
    assert driven.machine.session.tool_choice == "none"


def test_a_session_chooses_no_function_that_it_does_not_declare() -> None:
    chosen = {"type": "function", "name": "set_timer"}
    driven = declared(tool_choice=chosen)
    fly = {"tool_choice": {"type": "function", "name": "fly"}}
    (refused,) = driven.send({"type": "session.update", "session": fly})
    assert isinstance(refused, server.ErrorEvent)
    assert (refused.error.code, refused.error.param) == ("invalid_value", "session.tool_choice")
    assert driven.machine.session.model_dump(mode="json")["tool_choice"] == chosen
    driven.send({"type": "session.update", "session": {"tools": [LIGHT]}})
    assert driven.machine.session.tool_choice == "auto", "its function has left"


def test_a_model_that_calls_nothing_shows_no_tools() -> None:
    driven = Driven(calls=False)
    session = {"tools": [TIMER], "tool_choice": "required"}
    seen = driven.send({"type": "session.update", "session": session})
    assert isinstance(seen[-1], server.SessionUpdated)
    shown = seen[-1].session.model_dump()
    assert (shown["tools"], shown["tool_choice"]) == ([], "auto")


def test_a_turn_whose_answer_called_something_stays_as_it_is() -> None:
    driven = declared()
    driven.happen(fx.SpeechStarted(0))
    driven.happen(fx.SpeechStopped(900, (1,)))
    response = driven.runs[-1].response_id
    call(driven, response)
    driven.happen(fx.SpeechResumed(900))
    driven.happen(fx.SpeechStopped(1900, (1, 2)))
    items = driven.runs[-1].items
    assert [item.type for item in items] == ["message", "message", "function_call", "message"]
    assert isinstance(items[-1], Message)
    assert items[-1].role == "user"


def test_arguments_travel_in_the_beta_as_in_ga() -> None:

    asked = to_ga(
        {"type": "response.create", "response": {"tools": [TIMER], "tool_choice": "none"}}
    )
    assert asked["response"]["tools"] == [TIMER]
    assert asked["response"]["tool_choice"] == "none"
    driven = declared()
    told = [
        from_ga(one.model_dump(mode="json"))
        for one in call(driven, ask(driven))
        if isinstance(one, server.FromServer)
    ]
    assert [one["type"] for one in told if one is not None] == [
        kind.replace("conversation.item.added", "conversation.item.created")
        for kind in CALL_BLOCK
        if kind != "conversation.item.done"
    ]
