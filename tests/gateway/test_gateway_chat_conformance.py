"""docs/conformance.md on chat completions is what openai-python's types say and the server does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from conformance_chat import CHAT, HI, Said, chat_fields, chat_key
from scripted_server import Served


@pytest.fixture
async def http(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{served.http}/v1", timeout=30) as client:
        yield client


async def ask(http: httpx.AsyncClient, asked: dict[str, Any]) -> httpx.Response:
    messages = [*asked.get("messages", ()), HI]
    body = {"model": "scripted", **asked, "messages": messages}
    return await http.post("/chat/completions", json=body)


def test_nothing_is_said_of_a_field_that_is_gone() -> None:
    assert CHAT.keys() - set(map(chat_key, chat_fields())) == set()


@pytest.mark.parametrize(("key", "said"), CHAT.items(), ids=CHAT)
async def test_a_field_is_obeyed_or_refused_by_its_name_and_what_asks_for_nothing_is_taken(
    http: httpx.AsyncClient, key: str, said: Said
) -> None:
    reply = await ask(http, said.asked)
    if said.word != "refuse":
        assert reply.status_code == 200
        return
    error = reply.json()["error"]
    name = key.partition("[")[0].partition(".")[0].partition("(")[0]
    assert reply.status_code == 400
    assert error["param"].split(".")[0] == name
    assert len(error["message"]) > len(error["param"]) + 10  # it says why
    for value in said.off:
        assert (await ask(http, {name: value})).status_code == 200
