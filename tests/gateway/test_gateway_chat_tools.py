"""`POST /v1/chat/completions` with functions, as openai-python asks for them and reads them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from mutated_calls import LEGAL
from scripted import CALL_END, CALL_START, EOT, START, ScriptedEngine, call, scripted_parts, woven
from scripted_server import Served, serving_parts

TIMER = {
    "type": "function",
    "function": {
        "name": "set_timer",
        "description": "Start a timer.",
        "parameters": {
            "type": "object",
            "properties": {"minutes": {"type": "integer"}},
            "required": ["minutes"],
        },
    },
}
LIGHT = {"type": "function", "function": {"name": "set_light"}}
UNWRITABLE = {
    "type": "function",
    "function": {
        "name": "set_tea",
        "parameters": {"type": "object", "properties": {"茶": {}}, "required": ["茶"]},
    },
}
USER = {"role": "user", "content": "Five minutes."}
CALLED = {
    "id": "c1",
    "type": "function",
    "function": {"name": "set_timer", "arguments": '{"minutes": 5}'},
}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "joe", "format": "wav"}}


@pytest.fixture
async def client(served: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{served.http}/v1", api_key="unused", max_retries=0
    ) as client:
        yield client


async def ask(client: openai.AsyncOpenAI, *messages: object, **more: Any) -> Any:
    asked: Any = {"messages": messages or [USER], "tools": [TIMER, LIGHT], **more}
    return await client.chat.completions.create(model="scripted", **asked)


def prompt_of(served: Served) -> str:
    marks = {4: ">", CALL_START: "<", CALL_END: ">", START: "|"}
    return "".join(marks.get(token, chr(token)) for token in served.engine.prompts[-1])


async def test_a_call_is_a_message_with_tool_calls(
    client: openai.AsyncOpenAI, served: Served
) -> None:
    served.engine.answer = lambda prompt: [*call(LEGAL[0]), EOT]
    for more in ({}, SPOKEN):
        choice = (await ask(client, **more)).choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.audio is None
        (made,) = choice.message.tool_calls
        assert (made.function.name, made.function.arguments) == ("set_timer", '{"minutes":5}')
    assert "tools: set_timer(minutes) set_light()" in prompt_of(served)


async def test_what_is_said_before_a_call_comes_with_it(
    client: openai.AsyncOpenAI, served: Served
) -> None:
    served.engine.answer = lambda prompt: [*woven("Yes.", 3)[:-1], *call(LEGAL[0]), EOT]
    choice = (await ask(client)).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Yes.", "tool_calls")
    choice = (await ask(client, **SPOKEN)).choices[0]
    assert choice.message.audio.transcript == "Yes."
    assert len(choice.message.tool_calls) == 1


async def test_a_stream_gives_each_call_its_index(
    client: openai.AsyncOpenAI, served: Served
) -> None:
    served.engine.answer = lambda prompt: [*call(LEGAL[0]), *call(LEGAL[1]), EOT]
    calls, finish = [], None
    async for chunk in await ask(client, stream=True):
        calls += chunk.choices[0].delta.tool_calls or []
        finish = chunk.choices[0].finish_reason or finish
    assert finish == "tool_calls"
    assert [one.index for one in calls] == [0, 1]
    assert len({one.id for one in calls}) == 2
    assert json.loads(calls[1].function.arguments) == {"minutes": 5, "label": "the eggs"}


async def test_the_next_answer_knows_what_a_function_gave_back(
    client: openai.AsyncOpenAI, served: Served
) -> None:
    served.engine.answer = lambda prompt: woven("It runs.", 3)
    other = {**CALLED, "id": "c2"}
    results = [
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "one"}]},
    ]
    asked = {"role": "assistant", "content": None, "tool_calls": [CALLED, other]}
    reply = await ask(client, USER, asked, *results)
    assert reply.choices[0].message.content == "It runs."
    turn = f">assistant\n<{LEGAL[0]}>"
    said = prompt_of(served).replace(chr(EOT), "")
    assert said.endswith(f"{turn}>tool\none{turn}>tool\ntwo>assistant\n")


@pytest.mark.parametrize(
    ("choice", "opening"),
    [
        ("required", "<"),
        ({"type": "function", "function": {"name": "set_timer"}}, '<{"name":"set_timer'),
        ("none", "|"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "set_timer"}}],
                },
            },
            "<",
        ),
    ],
    ids=str,
)
async def test_the_choice_of_tools_is_obeyed(
    client: openai.AsyncOpenAI, served: Served, choice: Any, opening: str
) -> None:
    rest = woven("No.", 3)[1:] if choice == "none" else [*call(LEGAL[0]), EOT][len(opening) :]
    served.engine.answer = lambda prompt: rest
    reply = await ask(client, tool_choice=choice)
    assert reply.choices[0].finish_reason == ("stop" if choice == "none" else "tool_calls")
    assert prompt_of(served).endswith(f">assistant\n{opening}")
    allowed = isinstance(choice, dict) and choice["type"] == "allowed_tools"
    assert ("set_light()" in prompt_of(served)) != allowed


@pytest.mark.parametrize(
    ("messages", "more", "why"),
    [
        ([USER], {"tool_choice": {"type": "function", "function": {"name": "fly"}}}, "not among"),
        ([USER], {"tool_choice": {"type": "function", "function": {"name": "a b"}}}, "tool_choice"),
        ([USER], {"tool_choice": "required", "tools": []}, "not among"),
        ([USER], {"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "name"),
        ([USER], {"tools": [TIMER] * 129}, "128"),
        ([USER, {"role": "tool", "tool_call_id": "c9", "content": ""}], {}, "c9"),
        ([USER], {"tool_choice": "required", "tools": [UNWRITABLE]}, 'set_tea\' .* "茶"'),
    ],
    ids=["stranger", "no name", "none to require", "name", "too many", "no call", "unwritable"],
)
async def test_what_cannot_be_called_is_refused(
    client: openai.AsyncOpenAI, messages: list[Any], more: dict[str, Any], why: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=why):
        await ask(client, *messages, **more)


async def test_one_call_is_made_where_they_may_not_be_parallel(
    client: openai.AsyncOpenAI, served: Served
) -> None:
    served.engine.answer = lambda prompt: [*call(LEGAL[0]), *call(LEGAL[1]), EOT]
    choice = (await ask(client, parallel_tool_calls=False)).choices[0]
    assert (len(choice.message.tool_calls), choice.finish_reason) == (1, "tool_calls")


@pytest.mark.parametrize(
    "written",
    ['{"name":"set_timer"}', '{"name":"set_timer","arguments":{"minutes":"5"}}', '{"name":"fly"}'],
    ids=["no arguments", "malformed arguments", "unknown function"],
)
async def test_a_call_that_is_written_wrongly_is_told_as_that(
    client: openai.AsyncOpenAI, served: Served, written: str
) -> None:
    served.engine.answer = lambda prompt: [*call(written), EOT]
    with pytest.raises(openai.InternalServerError, match="nothing was called") as failed:
        await ask(client)
    assert (failed.value.status_code, failed.value.code) == (502, "invalid_tool_call")
    stream = await ask(client, stream=True)
    told = await anext(stream)
    assert told.choices[0].delta.tool_calls is None
    with pytest.raises(openai.APIError, match="nothing was called") as broken:
        await anext(stream)
    assert (broken.value.type, broken.value.code) == ("server_error", "invalid_tool_call")


async def test_a_bundle_that_calls_nothing_answers_in_words_unless_it_must_call() -> None:
    engine = ScriptedEngine(answer=lambda prompt: woven("Hm.", 3))
    parts = scripted_parts(engine, tools=False)
    async with (
        serving_parts(parts, engine) as served,
        openai.AsyncOpenAI(base_url=f"{served.http}/v1", api_key="unused", max_retries=0) as client,
    ):
        asked = {"role": "assistant", "content": None, "tool_calls": [CALLED]}
        result = {"role": "tool", "tool_call_id": "c1", "content": "done"}
        reply = await ask(client, USER, asked, result, USER)
        assert reply.choices[0].message.content == "Hm."
        assert "set_timer" not in prompt_of(served)
        assert "done" not in prompt_of(served)
        with pytest.raises(openai.BadRequestError, match=r"\[tools\]"):
            await ask(client, tool_choice="required")
