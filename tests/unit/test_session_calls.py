"""A live session whose model calls functions: from the question to the answer that uses the result.

The scripted engine plays the model; letters are its ids, so that prompts can be read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest
from live_talk import FakeClock, Talk, speak_and_pause
from mutated_calls import LEGAL
from scripted import AUDIO, CALL_END, CALL_START, EOT, START, ScriptedEngine, call, scripted_parts
from scripted import woven as weave

from aqaa.server.protocol import server_events as server
from aqaa.server.protocol.types import FunctionCall, Response

TIMER = {
    "type": "function",
    "name": "set_timer",
    "parameters": {
        "type": "object",
        "properties": {"minutes": {"type": "integer"}, "label": {"type": "string"}},
        "required": ["minutes"],
        "additionalProperties": False,
    },
}
CALLED = [*call(LEGAL[0]), EOT]


class Model:
    """Calls what it is told to first, then says what the tool gave back."""

    def __init__(self) -> None:
        self.first = CALLED

    def answer(self, prompt: Sequence[int]) -> list[int]:
        return weave("Your timer runs.", 6) if "tool\n" in read(prompt) else self.first


def read(prompt: Sequence[int]) -> str:
    """A prompt's letters; turns begin with `>`, sound is `~`, a call stands in brackets."""
    marks = {1: "", 3: "", 4: ">", CALL_START: "<", CALL_END: ">", START: "|"}
    return "".join(
        "~" if token >= AUDIO else marks.get(token, chr(token)) for token in prompt
    ).replace("~~~~~", "~")


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
async def talk(model: Model) -> AsyncIterator[Talk]:
    clock = FakeClock()
    engine = ScriptedEngine(answer=model.answer)
    talk = Talk(scripted_parts(engine, clock=clock, keep_pattern=True), clock)
    session = {"type": "realtime", "instructions": "Be kind.", "tools": [TIMER]}
    await talk.send("session.update", session=session)
    yield talk
    await talk.close()


def engine_of(talk: Talk) -> ScriptedEngine:
    engine = talk.parts.services.engine
    assert isinstance(engine, ScriptedEngine)
    return engine


async def done(talk: Talk, count: int = 1) -> Response:
    event = await talk.until("response.done", count)
    assert isinstance(event, server.ResponseDone)
    return event.response


async def called(talk: Talk, count: int = 1) -> server.ResponseFunctionCallArgumentsDone:
    event = await talk.until("response.function_call_arguments.done", count)
    assert isinstance(event, server.ResponseFunctionCallArgumentsDone)
    return event


async def give_back(talk: Talk, call_id: str, output: str = '{"ok": true}') -> None:
    item = {"type": "function_call_output", "call_id": call_id, "output": output}
    await talk.send("conversation.item.create", item=item)


async def ask(talk: Talk, **response: object) -> None:
    item = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "Five minutes."}],
    }
    await talk.send("conversation.item.create", item=item)
    await talk.send("response.create", response=response)


async def test_a_spoken_question_is_answered_with_what_a_function_gave_back(talk: Talk) -> None:
    await speak_and_pause(talk)
    told = await called(talk)
    assert (told.name, told.arguments) == ("set_timer", '{"minutes":5}')
    assert [item.type for item in (await done(talk)).output] == ["function_call"]
    assert talk.sound() == b""
    await give_back(talk, told.call_id)
    await talk.send("response.create")
    answer = await done(talk, 2)
    assert answer.status == "completed"
    assert "response.output_audio_transcript.done" in talk.types()
    assert len(talk.sound()) > 0
    question, result = (read(prompt) for prompt in engine_of(talk).prompts)
    begun = ">system\nBe kind.\ntools: set_timer(minutes,label?)>human\n"
    assert question.startswith(begun)
    assert question.endswith(">assistant\n")
    after = f'<{LEGAL[0]}>>tool\n{{"ok":true}}>assistant\n'
    assert result == question + after
    assert talk.counted("aqaa_tool_calls_total", outcome="whole") == 1


async def test_the_result_prompt_goes_on_from_what_the_model_wrote(talk: Talk) -> None:
    await ask(talk)
    told = await called(talk)
    await done(talk)
    await give_back(talk, told.call_id)
    await talk.send("response.create")
    await done(talk, 2)
    first, second = engine_of(talk).prompts
    assert second[: len(first) + len(CALLED)] == (*first, *CALLED)


async def test_an_output_may_come_while_its_caller_goes_on(talk: Talk, model: Model) -> None:
    model.first = [*call(LEGAL[0]), *call('{"name":"set_timer","arguments":{"minutes":7}}'), EOT]
    gate = engine_of(talk).gate = asyncio.Event()
    await ask(talk)
    gate.set()
    told = await called(talk)
    await give_back(talk, told.call_id, "one")
    await give_back(talk, (await called(talk, 2)).call_id, "two")
    assert [item.type for item in (await done(talk)).output] == ["function_call"] * 2
    await talk.send("response.create")
    await done(talk, 2)
    assert read(engine_of(talk).prompts[-1]).endswith(
        f'>assistant\n<{LEGAL[0]}>>tool\none>assistant\n<{{"name":"set_timer",'
        '"arguments":{"minutes":7}}>>tool\ntwo>assistant\n'
    )


async def test_what_is_said_before_a_call_is_heard_before_it(talk: Talk, model: Model) -> None:
    model.first = [*weave("One moment.", 6)[:-1], *CALLED]
    await ask(talk)
    response = await done(talk)
    assert [item.type for item in response.output] == ["message", "function_call"]
    kinds = talk.types()
    assert kinds.index("response.output_audio.done") < kinds.index(
        "response.function_call_arguments.done"
    )
    assert len(talk.sound()) == pytest.approx(6 * 0.12 * 48_000, rel=0.05)
    call_item = response.output[1]
    assert isinstance(call_item, FunctionCall)
    assert call_item.call_id is not None
    await give_back(talk, call_item.call_id)
    await talk.send("response.create")
    await done(talk, 2)
    turns = read(engine_of(talk).prompts[-1]).split(">assistant\n")
    assert turns[1].startswith("|One moment")
    assert "set_timer" not in turns[1]
    assert turns[2].startswith(f"<{LEGAL[0]}>>tool\n")


@pytest.mark.parametrize(
    "text",
    [
        "minutes",
        '{"name":"fly","arguments":{}}',
        '{"name":"set_timer","arguments":{"minutes":"5"}}',
    ],
)
async def test_a_malformed_call_is_an_error_and_nothing_of_it_is_seen(
    talk: Talk, model: Model, text: str
) -> None:
    model.first = [*call(text), EOT]
    await speak_and_pause(talk)
    response = await done(talk)
    assert (response.status, response.output) == ("failed", [])
    assert response.status_details is not None
    assert response.status_details.error is not None
    assert response.status_details.error.code == "invalid_tool_call"
    assert not [kind for kind in talk.types() if "function_call" in kind or "transcript" in kind]
    assert talk.sound() == b""
    assert talk.counted("aqaa_tool_calls_total", outcome="malformed") == 1
    model.first = weave("Here I am.", 3)
    await ask(talk)
    assert (await done(talk, 2)).status == "completed"
    assert "fly" not in read(engine_of(talk).prompts[-1])


async def test_a_call_that_the_token_limit_cuts_is_not_made(talk: Talk) -> None:
    await ask(talk, max_output_tokens=9)
    response = await done(talk)
    assert (response.status, response.output) == ("incomplete", [])


async def test_a_speculative_answer_calls_nothing_until_the_turn_is_over(talk: Talk) -> None:
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: len(engine_of(talk).prompts) == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    assert "response.function_call_arguments.done" not in talk.types()
    await talk.say(0.3, loud=False)
    await called(talk)
    await done(talk)
    assert len(engine_of(talk).prompts) == 1, "the speculation was adopted"


async def test_a_user_who_goes_on_is_called_nothing(talk: Talk, model: Model) -> None:
    model.first = [*call('{"name":"fly","arguments":{}}'), EOT]
    await speak_and_pause(talk, silence=0.3)
    await talk.becomes(lambda: len(engine_of(talk).prompts) == 1)
    for _ in range(50):
        await asyncio.sleep(0)
    await talk.say(0.5, loud=True)
    assert "response.function_call_arguments.done" not in talk.types()
    assert talk.counted("aqaa_tool_calls_total", outcome="malformed") == 0


async def test_an_interruption_amid_a_call_leaves_nothing_of_it(talk: Talk) -> None:
    gate = engine_of(talk).gate = asyncio.Event()
    await ask(talk)
    await talk.becomes(lambda: len(engine_of(talk).prompts) == 1)
    await talk.say(0.5, loud=True)
    response = await done(talk)
    gate.set()
    assert (response.status, response.output) == ("cancelled", [])
    assert "response.function_call_arguments.done" not in talk.types()


@pytest.mark.parametrize(
    ("choice", "opening"),
    [
        ("auto", ""),
        ("required", "<"),
        ({"type": "function", "name": "set_timer"}, '<{"name":"set_timer'),
        ("none", "|"),
    ],
    ids=str,
)
async def test_the_choice_of_tools_is_how_the_answer_begins(
    talk: Talk, choice: object, opening: str
) -> None:
    engine = engine_of(talk)
    rest = weave("No.", 3)[1:] if choice == "none" else CALLED[len(opening) :]
    engine.answer = lambda prompt: rest
    await ask(talk, tool_choice=choice)
    response = await done(talk)
    assert response.status == "completed"
    assert [item.type for item in response.output] == [
        "message" if choice == "none" else "function_call"
    ]
    prompt = read(engine.prompts[-1])
    assert prompt.endswith(">assistant\n" + opening)
    assert "tools: set_timer" in prompt
    asked = engine.asked[-1]
    assert asked.answered == len(opening)
    assert asked.pattern is not None
    assert asked.pattern.call_start == (None if choice == "none" else CALL_START)
    assert (CALL_START in asked.pattern.never) == (choice == "none")


@pytest.mark.parametrize(
    ("choice", "good", "prompts", "status"),
    [("required", 2, 2, "completed"), ("required", 3, 2, "failed"), ("auto", 2, 1, "failed")],
)
async def test_a_call_that_must_be_made_is_asked_for_once_more(
    talk: Talk, choice: str, good: int, prompts: int, status: str
) -> None:
    """`good`: which of the model's calls is the first that is legal."""
    engine = engine_of(talk)
    opening = 1 if choice == "required" else 0

    def answer(prompt: Sequence[int]) -> list[int]:
        bad = [*call('{"name":"fly","arguments":{}}'), EOT]
        return (CALLED if len(engine.prompts) >= good else bad)[opening:]

    engine.answer = answer
    await ask(talk, tool_choice=choice)
    response = await done(talk)
    assert response.status == status
    assert len(engine.prompts) == prompts
    assert len(set(engine.prompts)) == 1
    assert len(response.output) == (status == "completed")


async def test_a_call_where_none_may_be_fails_the_answer(talk: Talk) -> None:
    engine_of(talk).answer = lambda prompt: CALLED
    await ask(talk, tool_choice="none")
    assert (await done(talk)).status == "failed"


async def test_without_tools_the_model_is_told_of_none_and_held_from_calling(talk: Talk) -> None:
    engine_of(talk).answer = lambda prompt: weave("No.", 3)
    await ask(talk, tools=[])
    await done(talk)
    assert "tools:" not in read(engine_of(talk).prompts[-1])
    pattern = engine_of(talk).asked[-1].pattern
    assert pattern is not None
    assert CALL_START in pattern.never


async def test_a_bundle_that_calls_nothing_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    engine = ScriptedEngine(answer=lambda prompt: weave("Hm.", 3))
    talk = Talk(scripted_parts(engine, clock=clock, tools=False), clock)
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        await talk.send("session.update", session={"type": "realtime", "tools": [TIMER]})
    updated = await talk.until("session.updated")
    assert isinstance(updated, server.SessionUpdated)
    assert updated.session.model_dump()["tools"] == []
    told = [record for record in caplog.records if "[tools]" in record.getMessage()]
    assert len(told) == 1
    past = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    await talk.send("conversation.item.create", item=past)
    await ask(talk)
    assert (await done(talk)).status == "completed"
    assert '"name"' not in read(engine.prompts[-1])
    await talk.close()


async def test_a_call_that_cannot_be_written_is_not_demanded(talk: Talk, model: Model) -> None:
    """The scripted model has ids for letters below 2,000 alone."""
    model.first = CALLED[1:]  # the mark is written for it
    tea = {"type": "object", "properties": {"kind": {"enum": ["\u8336"]}}, "required": ["kind"]}
    tools = [{"type": "function", "name": "make_tea", "parameters": tea}]
    named = {"type": "function", "name": "make_tea"}
    await talk.send("session.update", session={"tools": tools, "tool_choice": named})
    await talk.send("session.update", session={"tools": tools})
    await talk.send("response.create", response={"tool_choice": "required"})
    refused = [one.error for one in talk.events if isinstance(one, server.ErrorEvent)]
    assert [(one.code, one.param) for one in refused] == [
        ("invalid_value", "session.tool_choice"),
        ("invalid_value", "response.tool_choice"),
    ]
    assert all("'make_tea'" in one.message and "\u8336" in one.message for one in refused)
    await talk.send("session.update", session={"tools": [*tools, TIMER], "tool_choice": "required"})
    await talk.send("response.create")
    await talk.until("response.function_call_arguments.done")
