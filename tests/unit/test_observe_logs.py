"""What a log line tells, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from aqaa.server.observe.logs import response_id, session_id, set_up

log = logging.getLogger("aqaa.test")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def only_object(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = lines(capsys)
    loaded: dict[str, Any] = json.loads(line)
    return loaded


def test_a_json_line_is_one_object_with_all_that_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("info", "json")
    before = datetime.now(UTC)
    log.info('%d places taken: "all" of them\nno more, adiós', 8)
    said = only_object(capsys)
    time = datetime.fromisoformat(said.pop("time"))
    assert abs((time - before).total_seconds()) < 1
    assert said == {
        "level": "info",
        "session": "-",
        "response": "-",
        "logger": "aqaa.test",
        "message": '8 places taken: "all" of them\nno more, adiós',
    }


async def test_a_line_from_a_thread_of_an_answer_knows_whose_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    set_up("info", "json")

    async def answer() -> None:
        session_id.set("sess_1")
        response_id.set("resp_2")
        await asyncio.to_thread(log.warning, "late")

    await asyncio.create_task(answer())
    log.debug("not at this level")
    said = only_object(capsys)
    assert (said["level"], said["session"], said["response"]) == ("warning", "sess_1", "resp_2")


def test_an_exception_stays_within_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info", "json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed")
    said = only_object(capsys)
    assert said["level"] == "error"
    assert said["exception"].startswith("Traceback")
    assert said["exception"].endswith("ValueError: two\nlines")


def test_text_is_the_usual_form(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("info")
    log.info("hello")
    (line,) = lines(capsys)
    assert line.endswith(" I - - aqaa.test: hello")
