"""docs/conformance.md on REST is what openai-python's types say and this server does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from conformance_rest import (
    CHAT,
    HI,
    TRANSCRIPTION,
    Said,
    chat_fields,
    key_in,
    transcription_fields,
)
from recordings import recording
from scripted import CountingTranscriber, ScriptedEngine
from scripted_server import serving


@pytest.fixture
async def http(engine: ScriptedEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serving(engine, transcriber=CountingTranscriber()) as served,
        httpx.AsyncClient(base_url=f"{served.http}/v1", timeout=30) as client,
    ):
        yield client


async def chat(http: httpx.AsyncClient, asked: dict[str, Any]) -> httpx.Response:
    messages = [*asked.get("messages", ()), HI]
    body = {"model": "scripted", **asked, "messages": messages}
    return await http.post("/chat/completions", json=body)


async def transcribe(http: httpx.AsyncClient, asked: dict[str, Any]) -> httpx.Response:
    files = {"file": ("question.wav", recording())}
    return await http.post("/audio/transcriptions", data=asked, files=files)


def check_refused(reply: httpx.Response, key: str) -> None:
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["param"].split(".")[0] == key.partition("[")[0].partition(".")[0].partition("(")[0]
    assert len(error["message"]) > len(error["param"]) + 10  # it says why


def test_nothing_is_said_of_a_field_that_is_gone() -> None:
    assert CHAT.keys() == {key_in(CHAT, field) for field in chat_fields()}
    assert TRANSCRIPTION.keys() == {key_in(TRANSCRIPTION, one) for one in transcription_fields()}


@pytest.mark.parametrize(("key", "said"), CHAT.items(), ids=CHAT)
async def test_a_field_is_obeyed_or_refused_by_its_name_and_what_asks_for_nothing_is_taken(
    http: httpx.AsyncClient, key: str, said: Said
) -> None:
    reply = await chat(http, said.asked)
    if said.word != "refuse":
        assert reply.status_code == 200
        return
    check_refused(reply, key)
    for value in said.off:
        assert (await chat(http, {key.partition(".")[0]: value})).status_code == 200


@pytest.mark.parametrize(("key", "said"), TRANSCRIPTION.items(), ids=TRANSCRIPTION)
async def test_a_field_of_a_form_is_taken_or_refused_by_its_name(
    http: httpx.AsyncClient, key: str, said: Said
) -> None:
    reply = await transcribe(http, said.asked)
    if said.word == "refuse":
        check_refused(reply, key)
    else:
        assert reply.status_code == 200


async def test_a_form_asks_for_nothing_that_there_is_not(http: httpx.AsyncClient) -> None:
    check_refused(await transcribe(http, {"response_format": "diarized_json"}), "response_format")
    check_refused(await transcribe(http, {"include[]": "speakers"}), "include")
