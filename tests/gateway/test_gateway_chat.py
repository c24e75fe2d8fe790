"""`POST /v1/chat/completions` with whatever histories, texts and numbers people send."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from recordings import recording
from scripted import AUDIO
from scripted_server import Served

from aqaa.server.gateway.schema import ChatRequest

FORMAT = "response_format.type"
TEXT = {"type": "text"}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
HI = b'{"model": "scripted", "messages": [{"role": "user", "content": "hi"}]'


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.http, timeout=30) as client:
        yield client


async def ask(http: httpx.AsyncClient, *messages: object, **more: object) -> httpx.Response:
    body = {"model": "scripted", "messages": messages, **more}
    return await http.post("/v1/chat/completions", json=body)


def user(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


def asked(served: Served) -> str:
    """The words of the last prompt: each character is an id of the scripted model."""
    return "".join(chr(token) for token in served.engine.prompts[-1] if 32 <= token < AUDIO)


@pytest.mark.parametrize(
    "spell",
    [
        lambda data: base64.encodebytes(data).decode(),
        lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
        lambda data: f"data:audio/wav;base64,{base64.b64encode(data).decode()}",
    ],
    ids=["line breaks", "url-safe without padding", "data URI"],
)
async def test_a_recording_is_read_in_every_spelling_of_base64(
    http: httpx.AsyncClient, spell: Any
) -> None:
    part = {"type": "input_audio", "input_audio": {"data": spell(recording()), "format": "wav"}}
    assert (await ask(http, user([part]))).status_code == 200


@pytest.mark.parametrize(
    "messages", [[user("")], [user(" \n")], [user([])], [{"role": "system", "content": "x"}]]
)
async def test_messages_without_a_question_are_told_so(
    http: httpx.AsyncClient, messages: list[object]
) -> None:
    reply = await ask(http, *messages)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [user([{"type": "image_url"}])]}, "messages.0.content.0.type"),
        ({"messages": [user([{"type": "text"}])]}, "messages.0.content.0.text"),
        ({"messages": [user(7)]}, "messages.0.content"),
        ({"messages": [user("hi")], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"messages": [user("hi")], "tool_choice": "always"}, "tool_choice"),
        ({"messages": [user("hi")], "logprobs": True}, "logprobs"),
        ({"messages": [user("hi")], "top_logprobs": 2}, "top_logprobs"),
        ({"messages": [user("hi")], "response_format": {"type": "json_object"}}, FORMAT),
        ({"messages": [user("hi")], "response_format": {"type": "json_schema"}}, FORMAT),
        ({"messages": [user("hi")], "functions": [{"name": "f"}]}, "functions"),
        ({"messages": [user("hi")], "audio": {"voice": {"name": "joe"}}}, "audio.voice"),
        ({"messages": [user("hi"), {"role": "assistant", "content": [SOUND]}]}, "messages.1"),
        ({"messages": [{"role": "system", "content": [SOUND]}, user("hi")]}, "messages.0"),
    ],
)
async def test_what_is_wrong_is_named_by_the_clients_own_keys(
    http: httpx.AsyncClient, body: dict[str, object], param: str
) -> None:
    reply = await http.post("/v1/chat/completions", json={"model": "scripted", **body})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: ")


async def test_what_is_not_done_here_may_be_asked_not_to_be_done(http: httpx.AsyncClient) -> None:
    off = {"logprobs": False, "top_logprobs": 0, "functions": [], "response_format": TEXT}
    assert (await ask(http, user("hi"), **off)).status_code == 200


async def test_what_a_model_refused_to_say_stands_in_the_prompt(
    http: httpx.AsyncClient, served: Served
) -> None:
    refused = {"role": "assistant", "content": None, "refusal": "not that"}
    await ask(http, user("hi"), refused, user("why"))
    assert "not that" in asked(served)


async def test_json_may_begin_with_the_mark_that_some_editors_write(
    http: httpx.AsyncClient,
) -> None:
    body = b"\xef\xbb\xbf" + HI + b"}"
    assert (await http.post("/v1/chat/completions", content=body)).status_code == 200


async def test_a_compressed_body_is_told_so(http: httpx.AsyncClient) -> None:
    headers = {"content-encoding": "gzip"}
    reply = await http.post("/v1/chat/completions", content=HI + b"}", headers=headers)
    assert (reply.status_code, "not as gzip" in reply.text) == (415, True)


async def test_a_key_that_is_null_is_not_set(http: httpx.AsyncClient) -> None:
    unset = ("audio", "stream", "stream_options", "seed", "n", "tools", "tool_choice", "modalities")
    assert (await ask(http, user("hi"), **dict.fromkeys(unset))).status_code == 200


@pytest.mark.parametrize(
    "numbers",
    [
        {"temperature": 1e-320},
        {"temperature": 5e-324, "top_p": 1e-320},
        {"seed": 2**63 - 1},
        {"max_tokens": 2**31 - 1},
    ],
)
async def test_extreme_numbers_are_answered(
    http: httpx.AsyncClient, numbers: dict[str, float]
) -> None:
    assert (await ask(http, user("hi"), **numbers)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "scripted", "messages": [{"role": "user", "content": "\\ud800"}]}',
        HI + b', "temperature": NaN}',
        HI + b', "x": 1e999}',
        HI + b', "seed": 1' + b"0" * 30 + b"}",
        b"{" + b'"a":{' * 3000,
        b'{"messages": [' + b"[]," * 60_000 + b"[]]}",
        b"\xff\xfe",
    ],
    ids=["lone surrogate", "NaN", "infinite", "huge seed", "deep", "many values", "not UTF-8"],
)
async def test_bad_json_is_a_refusal_and_no_fault(http: httpx.AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    reply = await http.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] in ("invalid_json", "invalid_value")


@pytest.mark.parametrize(
    "said", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "\xff", None]
)
async def test_json_is_read_whatever_its_sender_says_that_it_is(
    http: httpx.AsyncClient, said: str | None
) -> None:
    """`curl -d` says that it is a form."""
    headers = {} if said is None else {"content-type": said.encode("latin-1")}
    reply = await http.post("/v1/chat/completions", content=HI + b"}", headers=headers)  # type: ignore[arg-type]
    assert reply.status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": [1] * 1000},
        {"messages": [user([{"type": "video"}] * 1000)]},
        {"messages": [{"role": "assistant", "tool_calls": [{}] * 1000}]},
        {"messages": [user("hi")], "modalities": ["video"] * 1000},
    ],
    ids=["messages", "parts", "calls", "modalities"],
)
def test_of_many_mistakes_the_first_ones_are_told(wrong: dict[str, Any]) -> None:
    """Thousands were collected on the event loop."""
    with pytest.raises(ValidationError) as told:
        ChatRequest.model_validate({"model": "scripted", **wrong})
    assert told.value.error_count() < 5  # a union tells of each of its members


async def test_a_body_that_is_missing_is_told_so(http: httpx.AsyncClient) -> None:
    reply = await http.post("/v1/chat/completions")
    assert reply.json()["error"]["message"] == "the body: Field required"


async def test_an_error_does_not_give_a_long_name_back_whole(http: httpx.AsyncClient) -> None:
    audio = {"voice": "x" * 100_000, "format": "pcm16"}
    reply = await ask(http, user("hi"), modalities=["text", "audio"], audio=audio)
    assert reply.status_code == 400
    assert len(reply.json()["error"]["message"]) < 2100


async def test_a_long_history_loses_its_oldest_messages_and_keeps_the_question(
    http: httpx.AsyncClient, served: Served
) -> None:
    old = [user(f"old {n} " + "x" * 4000) for n in range(200)]
    reply = await ask(http, {"role": "system", "content": "be brief"}, *old, user("the question"))
    assert reply.status_code == 200
    assert "be brief" in asked(served)
    assert "the question" in asked(served)


async def test_a_text_that_fits_no_prompt_is_refused_with_the_number(
    http: httpx.AsyncClient,
) -> None:
    reply = await ask(http, user("x" * 5_000_000))
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert "5000000 characters" in reply.json()["error"]["message"]


def error_in(reply: httpx.Response) -> dict[str, str]:
    """The error of a reply, or of the last event of a stream."""
    last = reply.text.strip().split("\n\n")[-1].removeprefix("data: ")
    error: dict[str, str] = json.loads(last)["error"]
    return error


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_prompt_that_the_decoder_finds_too_long_is_refused_in_its_words(
    http: httpx.AsyncClient, served: Served, stream: bool
) -> None:
    served.engine.context = 20  # less than the bundle says: a vLLM that was started with less
    reply = await ask(http, user("a question of more than twenty letters"), stream=stream)
    assert reply.status_code == (200 if stream else 400)  # a stream has begun by then
    error = error_in(reply)
    assert error["code"] == "context_length_exceeded"
    assert "the context holds 20" in error["message"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_decoder_that_died_is_our_fault_and_says_nothing_of_itself(
    http: httpx.AsyncClient, served: Served, stream: bool
) -> None:
    served.engine.alive = False
    reply = await ask(http, user("hi"), stream=stream)
    assert reply.status_code == (200 if stream else 500)
    error = error_in(reply)
    assert error["code"] == "engine_error"
    assert "engine_died" in error["message"]


async def test_a_recorded_question_that_the_decoder_finds_too_long_is_told_so(
    http: httpx.AsyncClient, served: Served
) -> None:
    served.engine.context = 20
    reply = await http.post("/v1/answer", content=recording())
    assert reply.status_code == 400
    assert "the context holds 20" in error_in(reply)["message"]


async def test_a_stream_is_kept_by_no_cache_and_collected_by_no_proxy(
    http: httpx.AsyncClient,
) -> None:
    reply = await ask(http, user("hi"), stream=True)
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
